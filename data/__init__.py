"""Turn files on disk into batches on the device: data sets, decoded store, samplers, augmentation, synthetic set."""
