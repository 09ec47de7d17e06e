// Many tensors in one launch: a block takes a chunk of the tensors of one row. `table.rs` writes the rows.

#define CHUNK 16384

struct Row {
    void *tensors[8];
    // Elements of each, and the block that takes the first chunk of them.
    u32 elements, first_block;
    float numbers[2];
    u32 slot, unused;
};

// The row that this block takes a chunk of; every thread calls it.
__device__ inline Row row_of_block(const Row *rows, int count) {
    __shared__ int found;
    for (int i = threadIdx.x; i < count; i += BLOCK) {
        // Unsigned: blocks before the row's first one are far behind its last.
        if (blockIdx.x - rows[i].first_block < (rows[i].elements + (i64)CHUNK - 1) / CHUNK) found = i;
    }
    __syncthreads();
    return rows[found];
}

// The elements of this block's chunk.
#define FOR_CHUNK(i, row)                                                                                              \
    for (i64 i = (i64)(blockIdx.x - row.first_block) * CHUNK + threadIdx.x,                                            \
             end = min((i64)row.elements, (i64)(blockIdx.x - row.first_block + 1) * CHUNK);                            \
         i < end; i += BLOCK)
