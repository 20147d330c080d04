"""From files on disk to batches on the device: parsers, decoded store, samplers, augmentation, the synthetic set."""
