/* The functions of the table, in its order. Shapes and equations are those of ops/operations.inl. */
#define MATRIX rolegrad_cuda_matrix
#define GRADIENT rolegrad_cuda_gradient

/* ---- memory: allocate() gives zeroed memory, on 256 bytes */
ROLEGRAD_CUDA_FUNCTION(allocate, void** data, size_t bytes)
ROLEGRAD_CUDA_FUNCTION(release, void* data)
/* from is the host's; it may change when the call returns */
ROLEGRAD_CUDA_FUNCTION(upload, void* to, size_t to_pitch, const void* from, size_t from_pitch, size_t width,
                       size_t rows)
ROLEGRAD_CUDA_FUNCTION(download, void* to, size_t to_pitch, const void* from, size_t from_pitch, size_t width,
                       size_t rows)
ROLEGRAD_CUDA_FUNCTION(copy, void* to, size_t to_pitch, const void* from, size_t from_pitch, size_t width, size_t rows)
ROLEGRAD_CUDA_FUNCTION(clear, void* to, size_t to_pitch, size_t width, size_t rows)
ROLEGRAD_CUDA_FUNCTION(synchronize, int32_t unused)

/* ---- rows */
ROLEGRAD_CUDA_FUNCTION(round_gradient, MATRIX to, GRADIENT from)
ROLEGRAD_CUDA_FUNCTION(add, MATRIX y, MATRIX x)
ROLEGRAD_CUDA_FUNCTION(add_gradient, GRADIENT y, GRADIENT x)
ROLEGRAD_CUDA_FUNCTION(transpose, MATRIX to, MATRIX from)
/* y[i] = x[index[i]] */
ROLEGRAD_CUDA_FUNCTION(gather_rows, MATRIX y, MATRIX x, const int32_t* index)
/* y[index[i]] = x[i] */
ROLEGRAD_CUDA_FUNCTION(scatter_rows, MATRIX y, MATRIX x, const int32_t* index)
ROLEGRAD_CUDA_FUNCTION(embed, MATRIX y, rolegrad_cuda_weight table, const int32_t* ids)
/* Segments [begin[s], begin[s + 1]) of `rows` are the rows of one id in one sequence; those of id ids[i] are
 * first[i] .. first[i + 1] - 1, in the order of the sequences. */
ROLEGRAD_CUDA_FUNCTION(embed_gradient, GRADIENT dtable, MATRIX dx, const int32_t* rows, const int32_t* begin,
                       const int32_t* ids, const int32_t* first, int64_t count)
ROLEGRAD_CUDA_FUNCTION(swiglu, MATRIX y, MATRIX x)
ROLEGRAD_CUDA_FUNCTION(swiglu_backward, MATRIX dx, MATRIX dy, MATRIX x)
ROLEGRAD_CUDA_FUNCTION(rope, MATRIX x, int32_t heads, int32_t head_dim, const int32_t* positions,
                       const double* frequencies, int32_t inverse)
ROLEGRAD_CUDA_FUNCTION(dropout, MATRIX y, MATRIX x, const uint64_t* key, const int32_t* position, const float* rate,
                       uint32_t site, const int32_t* adapter)
ROLEGRAD_CUDA_FUNCTION(softmax_rows, MATRIX y, MATRIX x)
ROLEGRAD_CUDA_FUNCTION(softmax_rows_backward, MATRIX dx, MATRIX dy, MATRIX y)
ROLEGRAD_CUDA_FUNCTION(gate, MATRIX out, MATRIX u, MATRIX gates, int32_t modules, const int32_t* adapter)
ROLEGRAD_CUDA_FUNCTION(gate_gradient, MATRIX dgates, MATRIX u, MATRIX du, float scale, int32_t modules,
                       const int32_t* adapter, int32_t accumulate)

/* ---- norms: of each block of w.cols columns of a row by itself; inverse [T * heads] is 1 / sqrt(mean(x^2) + eps) */
ROLEGRAD_CUDA_FUNCTION(rms_inverse, float* inverse, MATRIX x, int64_t width, float eps)
ROLEGRAD_CUDA_FUNCTION(rmsnorm, MATRIX y, MATRIX x, MATRIX w, float eps)
ROLEGRAD_CUDA_FUNCTION(rmsnorm_backward, MATRIX dx, MATRIX dy, MATRIX x, MATRIX w, const float* inverse,
                       int32_t accumulate)
ROLEGRAD_CUDA_FUNCTION(rmsnorm_weight, GRADIENT dw, MATRIX dy, MATRIX x, const float* inverse,
                       rolegrad_cuda_group group)

/* ---- products */
ROLEGRAD_CUDA_FUNCTION(product, const rolegrad_cuda_product* product)
/* projections [adapters, modules] */
ROLEGRAD_CUDA_FUNCTION(project, MATRIX out, MATRIX x, const rolegrad_cuda_projection* projections, int64_t modules,
                       const int32_t* adapter)
ROLEGRAD_CUDA_FUNCTION(outer, const rolegrad_cuda_outer* outer)
/* db [1, N] += sum of dy over each sequence of the group */
ROLEGRAD_CUDA_FUNCTION(column_sums, GRADIENT db, MATRIX dy, rolegrad_cuda_group group)
/* y [S, E] = c [S, n] v [n, E], in f64 */
ROLEGRAD_CUDA_FUNCTION(combine, MATRIX y, const double* c, MATRIX v)

/* ---- attention */
ROLEGRAD_CUDA_FUNCTION(cache_write, rolegrad_cuda_cache cache, int32_t layer, MATRIX k, MATRIX v,
                       rolegrad_cuda_sequences sequences)
ROLEGRAD_CUDA_FUNCTION(attention, MATRIX out, MATRIX lse, MATRIX q, rolegrad_cuda_cache cache, int32_t layer,
                       rolegrad_cuda_sequences sequences)
/* delta [T, heads] is memory to work in; roles may be null */
ROLEGRAD_CUDA_FUNCTION(attention_backward, MATRIX dq, MATRIX dk, MATRIX dv, MATRIX dout, MATRIX q, MATRIX out,
                       MATRIX lse, MATRIX delta, rolegrad_cuda_cache cache, int32_t layer,
                       rolegrad_cuda_sequences sequences, const int8_t* roles)

/* ---- the head, over logits [R, n] of the words first .. first + n - 1 */
/* stats [R, 2 * chunks]: of each 1024 logits / temperature the maximum and the sum of exp(l - maximum), the first chunk
 * of these logits being number `chunk`; logit[r] is the target's where it is among them */
ROLEGRAD_CUDA_FUNCTION(chunk_stats, MATRIX stats, int64_t chunk, float* logit, MATRIX logits, const float* temperature,
                       int64_t first, const int32_t* targets)
/* logits[:, ids[j] - first] = own[:, j] where that is among them; dlogits the other way round, and those become 0 */
ROLEGRAD_CUDA_FUNCTION(replace_logits, MATRIX logits, MATRIX own, const int32_t* ids, int64_t first)
ROLEGRAD_CUDA_FUNCTION(take_replaced, MATRIX dlogits, MATRIX gradient, const int32_t* ids, int64_t first)
/* logprob, lse [R, 1] from the stats of all chunks and the targets' logits; totals [R, 2]: the maximum of all chunks,
 * and their sum relative to it */
ROLEGRAD_CUDA_FUNCTION(head_logprobs, MATRIX logprob, MATRIX lse, MATRIX totals, MATRIX stats, const float* logit)
/* logits become their gradient, 0 where the coefficient is. Kinds: 0 of a log-probability, c (p - [v = target]) / t;
 * 1 of the entropy, -c p (log p + entropy) / t; 2 exp(l - maximum), where `statistic` is totals and not the entropy */
ROLEGRAD_CUDA_FUNCTION(logit_gradient, MATRIX logits, MATRIX lse, MATRIX statistic, const float* coefficient,
                       const int32_t* targets, float temperature, int64_t first, int32_t kind)
/* x[r] /= the sum of totals[r]: what was added up with exp(l - maximum), of which equal words have exactly 1. Divided
 * before, every one of them would be rounded the same way */
ROLEGRAD_CUDA_FUNCTION(divide_by_totals, MATRIX x, MATRIX totals)
ROLEGRAD_CUDA_FUNCTION(head_mean_backward, MATRIX dh, MATRIX mean, rolegrad_cuda_weight head, const int32_t* targets,
                       const float* coefficient, float temperature)
ROLEGRAD_CUDA_FUNCTION(head_entropy, MATRIX entropy, MATRIX h, MATRIX mean, MATRIX lse, float temperature)
/* token[r] and its logit. kind[r] 0: the first logit / temperature that is maximum[r], in chunk[r]; 1: the inverse
 * distribution at left[r] within chunk[r]; 2: token[r] is known */
ROLEGRAD_CUDA_FUNCTION(draw, int32_t* token, float* logit, MATRIX logits, const int32_t* kind, const int32_t* chunk,
                       const float* maximum, const double* left, const float* temperature)

/* ---- training */
/* *sum += of the rows in order; partial [rows] is memory to work in */
ROLEGRAD_CUDA_FUNCTION(sum_of_squares, double* sum, GRADIENT g, double* partial)
ROLEGRAD_CUDA_FUNCTION(squared_distance, double* sum, MATRIX x, MATRIX y, double* partial)
/* decay = 1 - lr wd, rate = lr / (1 - beta1^step), root = sqrt(1 - beta2^step) */
ROLEGRAD_CUDA_FUNCTION(adamw, MATRIX p, GRADIENT g, MATRIX m, MATRIX v, double max_norm, double decay, double beta1,
                       double beta2, double rate, double root, double epsilon, const double* sum_of_squares)

#undef MATRIX
#undef GRADIENT
