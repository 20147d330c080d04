"""From files on disk to batches on the device: data sets, decoded store, samplers, augmentation, the synthetic set."""
