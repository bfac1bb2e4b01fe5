"""A run's allocations in order, replayed through a model of CUDA's caching allocator: what fragmentation costs."""
