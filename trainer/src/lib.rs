//! Trains a layer graph: data, augmentation, optimisers, schedules, checkpoints.
