// The operations of the seam, one line each: outputs first, shapes and equation in the comment. Included in the class
// of every backend, which declares them all by it (see Backend).

// ---- memory
ROLEGRAD_OPERATION(std::unique_ptr<Memory> allocate(size_t bytes));   // zeroed
ROLEGRAD_OPERATION(void write(const Tensor& to, const float* from));  // from: [rows, cols] dense
ROLEGRAD_OPERATION(void read(float* to, const Tensor& from));         // to: [rows, cols] dense
ROLEGRAD_OPERATION(void write(const GradTensor& to, const double* from));
ROLEGRAD_OPERATION(void read(double* to, const GradTensor& from));
ROLEGRAD_OPERATION(void zero(const Tensor& x));
ROLEGRAD_OPERATION(void zero(const GradTensor& x));
ROLEGRAD_OPERATION(void copy(const Tensor& to, const Tensor& from));
ROLEGRAD_OPERATION(void round(const Tensor& to, const GradTensor& from));  // to f32

// ---- weights
ROLEGRAD_OPERATION(std::unique_ptr<PackedWeight> pack(std::span<const WeightSource> modules));
/// Writes f32 values [n(m), k] over module m (and its bias, unless null) after an update in full training.
ROLEGRAD_OPERATION(void repack(PackedWeight& w, int m, const Tensor& values, const Tensor* bias));
/// at and b from a and bt.
ROLEGRAD_OPERATION(void refresh_lora(const LoraGroup& group));

// ---- forward
/// y [T, H] = rows `ids` [T] of the table, which is module 0 of `table` (N = vocabulary, K = H).
ROLEGRAD_OPERATION(void embed(const Tensor& y, const PackedWeight& table, std::span<const int32_t> ids));
/// y [T, H] = x / sqrt(mean(x^2) + eps) * w, w [1, H].
ROLEGRAD_OPERATION(void rmsnorm(const Tensor& y, const Tensor& x, const Tensor& w, float eps));
/// The same on each head of a row by itself: y [T, heads * d], x the same, w [1, d]; y may be x.
ROLEGRAD_OPERATION(void rmsnorm_heads(const Tensor& y, const Tensor& x, const Tensor& w, float eps));
/// y [T, N] = x [T, K] w^T + bias + u bt, u [T, columns] = scale * x a^T, each row by the pairs of its own adapter
/// (eq. 10). Rows without one get x w^T + bias alone. `u` (may be empty when no adapter has pairs in `lora`) is kept
/// for the backward pass; its columns beyond those of the row's own adapter are not written.
ROLEGRAD_OPERATION(void linear(const Tensor& y, const Tensor& u, const Tensor& x, const PackedWeight& w, LoraSet lora,
                               const Rows& rows));
/// The two halves of linear(), for what comes between them. u = scale * x a^T, each row by its own adapter.
ROLEGRAD_OPERATION(void lora_u(const Tensor& u, const Tensor& x, LoraSet lora, const Rows& rows));
/// y = x w^T + bias + u bt with u as it is.
ROLEGRAD_OPERATION(void linear_from_u(const Tensor& y, const Tensor& u, const Tensor& x, const PackedWeight& w,
                                      LoraSet lora, const Rows& rows));
/// y [T, K] = x / (1 - rate), or 0 where it is dropped; rows without an adapter as they are. y may be x. Its own
/// gradient: the same on dy.
ROLEGRAD_OPERATION(void dropout(const Tensor& y, const Tensor& x, const Dropout& dropout, const Rows& rows));
/// y [T, R] = softmax(x); dx = y * (dy - sum(dy * y)), dx may be dy.
ROLEGRAD_OPERATION(void softmax_rows(const Tensor& y, const Tensor& x));
ROLEGRAD_OPERATION(void softmax_rows_backward(const Tensor& dx, const Tensor& dy, const Tensor& y));
/// Soft routing: u [T, modules * R * r] holds for each module R blocks of r columns, one an expert; block v is taken
/// times gates[t, v], and is 0 where the gate is. Rows that run no adapter are left as they are. out may be u.
ROLEGRAD_OPERATION(void gate(const Tensor& out, const Tensor& u, const Tensor& gates, int modules, const Rows& rows));
/// In place on `heads` heads of head_dim columns: rotates (x_i, x_{i + d/2}) by position * theta^(-2 i / d);
/// `inverse` by minus that. `frequencies` [d/2] in f64.
ROLEGRAD_OPERATION(void rope(const Tensor& x, int heads, int head_dim, std::span<const int32_t> positions,
                             std::span<const double> frequencies, bool inverse));
ROLEGRAD_OPERATION(std::unique_ptr<KvPages> kv_pages(int layers, const AttentionShape& shape, int64_t pages));
/// k, v [T, kv_heads * d] into the pages of each span at its positions.
ROLEGRAD_OPERATION(void kv_write(KvPages& kv, int layer, const AttentionShape& shape, const Tensor& k, const Tensor& v,
                                 std::span<const SequenceSpan> spans));
/// Page `to` becomes what page `from` holds, in every layer: a sequence that goes on from a page it shares writes to
/// a copy.
ROLEGRAD_OPERATION(void kv_copy_page(KvPages& kv, int32_t to, int32_t from));
/// out [T, heads * d], lse [T, heads]: causal attention of q [T, heads * d] over positions 0 .. its own of its
/// sequence. Keys are walked in splits of 512, each with a fresh (max, sum, out), combined in increasing order.
ROLEGRAD_OPERATION(void attention(const Tensor& out, const Tensor& lse, const Tensor& q, const KvPages& kv, int layer,
                                  const AttentionShape& shape, std::span<const SequenceSpan> spans));
/// y [T, I] = silu(x[:, :I]) * x[:, I:], x [T, 2 I].
ROLEGRAD_OPERATION(void swiglu(const Tensor& y, const Tensor& x));
/// y += x.
ROLEGRAD_OPERATION(void add(const Tensor& y, const Tensor& x));
/// y [n, cols] = rows `index` of x.
ROLEGRAD_OPERATION(void gather_rows(const Tensor& y, const Tensor& x, std::span<const int32_t> index));
/// logits [R, V] = h [R, H] w^T.
ROLEGRAD_OPERATION(void logits(const Tensor& logits, const Tensor& h, const PackedWeight& head));
/// logprob, lse [R, 1]: log softmax(h w^T / temperature) at targets [R], and its log-sum-exp; never R x V logits.
/// `replaced`: entries with logits of their own.
ROLEGRAD_OPERATION(void head_logprobs(const Tensor& logprob, const Tensor& lse, const Tensor& h,
                                      const PackedWeight& head, std::span<const int32_t> targets, float temperature,
                                      const LogitColumns& replaced = {}));
/// The same bits, and from the same pass over the vocabulary mean [R, H] = sum_v softmax(h w^T / temperature)_v w_v
/// for the rows that are `wanted` [R] (others are left as they are, or hold their mean): all that
/// head_mean_backward needs of the head.
ROLEGRAD_OPERATION(void head_logprobs_mean(const Tensor& logprob, const Tensor& lse, const Tensor& mean,
                                           const Tensor& h, const PackedWeight& head, std::span<const int32_t> targets,
                                           float temperature, std::span<const uint8_t> wanted));

// ---- backward
/// dx [T, K] (+)= dy w + du a; du [T, columns] = scale * dy b by the row's adapter, kept for lora_gradient.
ROLEGRAD_OPERATION(void linear_backward(const Tensor& dx, const Tensor& du, const Tensor& dy, const PackedWeight& w,
                                        LoraSet lora, const Rows& rows, bool accumulate));
/// dx (+)= dy w + du a with du as it is.
ROLEGRAD_OPERATION(void linear_backward_from_du(const Tensor& dx, const Tensor& du, const Tensor& dy,
                                                const PackedWeight& w, LoraSet lora, const Rows& rows,
                                                bool accumulate));
/// dx [T, K] = du a by the row's adapter; 0 for rows without one.
ROLEGRAD_OPERATION(void lora_dx(const Tensor& dx, const Tensor& du, LoraSet lora, const Rows& rows));
/// dgates [T, R] (+)= sum over the columns of block v of u * du / scale, u and du those before gate(); 0 for rows
/// that run no adapter.
ROLEGRAD_OPERATION(void gate_gradient(const Tensor& dgates, const Tensor& u, const Tensor& du, float scale, int modules,
                                      const Rows& rows, bool accumulate));
/// du alone, where dx is not needed (the first layer under a frozen embedding).
ROLEGRAD_OPERATION(void lora_du(const Tensor& du, const Tensor& dy, const PackedWeight& w, LoraSet lora,
                                const Rows& rows));
/// For every adapter v with rows: a += du^T x, bt += u^T dy over its rows; one chain a sequence, then f64 in sequence
/// order.
ROLEGRAD_OPERATION(void lora_gradient(LoraGradientSet gradients, const Tensor& u, const Tensor& du, const Tensor& x,
                                      const Tensor& dy, const PackedWeight& w, LoraSet lora, const Rows& rows));
/// dw [N, K] += dy^T x, db [1, N] += sum of dy (unless null), over `group`'s rows.
ROLEGRAD_OPERATION(void weight_gradient(const GradTensor& dw, const GradTensor* db, const Tensor& dy, const Tensor& x,
                                        const Rows::Group& group));
/// g [n, n] += v v^T, v [n, E]: chains of `chain` products in f32, which are summed in f64 in their order.
ROLEGRAD_OPERATION(void gram(const GradTensor& g, const Tensor& v, int64_t chain));
/// y [S, E] = c v for c [S, n] in f64, v [n, E]: summed in f64 in the order of v's rows. Rows of coefficient 0 are left
/// out.
ROLEGRAD_OPERATION(void combine(const Tensor& y, std::span<const double> c, const Tensor& v));
/// dx (+)= gradient of rmsnorm; dw [1, H] += unless null.
ROLEGRAD_OPERATION(void rmsnorm_backward(const Tensor& dx, const GradTensor* dw, const Tensor& dy, const Tensor& x,
                                         const Tensor& w, float eps, const Rows::Group& group, bool accumulate));
/// dx = gradient of rmsnorm_heads (dx may be dy); dw [1, d] += unless null: one chain over the rows of a sequence and
/// within a row over its heads.
ROLEGRAD_OPERATION(void rmsnorm_heads_backward(const Tensor& dx, const GradTensor* dw, const Tensor& dy,
                                               const Tensor& x, const Tensor& w, float eps, const Rows::Group& group));
/// dq [T, heads d], dk, dv [T, kv_heads d] (overwritten), for whole sequences (start 0). With `roles` [T] not empty
/// the gradient does not pass through the key or value of a position whose role differs from the query's (crossRole
/// "stop").
ROLEGRAD_OPERATION(void attention_backward(const Tensor& dq, const Tensor& dk, const Tensor& dv, const Tensor& dout,
                                           const Tensor& q, const Tensor& out, const Tensor& lse, const KvPages& kv,
                                           int layer, const AttentionShape& shape, std::span<const SequenceSpan> spans,
                                           std::span<const int8_t> roles));
/// dx [T, 2 I] from dy [T, I] and x [T, 2 I]; dx may be x.
ROLEGRAD_OPERATION(void swiglu_backward(const Tensor& dx, const Tensor& dy, const Tensor& x));
/// dh [R, H] = sum_v coefficient[r] * (softmax(h w^T / temperature)_v - [v = target]) / temperature * w_v, from the
/// lse of head_logprobs (coefficient = -d loss / d logprob); dw [V, H] += unless null, over `group`. Entries that are
/// `replaced` are left out of dh and dw: their dlogits [R, ids] is written instead.
ROLEGRAD_OPERATION(void head_backward(const Tensor& dh, const GradTensor* dw, const Tensor& h, const Tensor& lse,
                                      const PackedWeight& head, std::span<const int32_t> targets,
                                      std::span<const float> coefficient, float temperature, const Rows::Group& group,
                                      const LogitColumns& replaced = {}, const Tensor& dlogits = {}));
/// dh [R, H] = coefficient[r] / temperature * (mean - w_target): head_backward without dw, and without a second pass
/// over the vocabulary. Rows of coefficient 0 are 0, whatever their mean.
ROLEGRAD_OPERATION(void head_mean_backward(const Tensor& dh, const Tensor& mean, const PackedWeight& head,
                                           std::span<const int32_t> targets, std::span<const float> coefficient,
                                           float temperature));
/// entropy [R, 1] of softmax(h w^T / temperature), from what head_logprobs_mean gave: lse - h . mean / temperature.
ROLEGRAD_OPERATION(void head_entropy(const Tensor& entropy, const Tensor& h, const Tensor& mean, const Tensor& lse,
                                     float temperature));
/// dh [R, H] += coefficient[r] * d entropy / dh, with p = softmax(h w^T / temperature):
/// d entropy / dh = -1 / temperature * sum_v p_v (log p_v + entropy) w_v; dw [V, H] += unless null, over `group`.
ROLEGRAD_OPERATION(void head_entropy_backward(const Tensor& dh, const GradTensor* dw, const Tensor& h,
                                              const Tensor& lse, const Tensor& entropy, const PackedWeight& head,
                                              std::span<const float> coefficient, float temperature,
                                              const Rows::Group& group));
/// dtable [V, H] += rows of dx [T, H] by ids.
ROLEGRAD_OPERATION(void embed_gradient(const GradTensor& dtable, const Tensor& dx, std::span<const int32_t> ids,
                                       const Rows::Group& group));
/// dst[index[i]] = src[i]; other rows of dst are zeroed.
ROLEGRAD_OPERATION(void scatter_rows(const Tensor& dst, const Tensor& src, std::span<const int32_t> index));

// ---- training
/// coefficient[r] = -d loss / d logprob for each row of weight != 0, else 0; per_token[r] = the bracket of eq. 9
/// (unweighted), 0 where masked. With `sequence_ratio` each row has its sequence's ratio, whose derivative by every
/// log-probability of the sequence is ratio / rows.
ROLEGRAD_OPERATION(PolicyLossOutput policy_loss(std::span<float> coefficient, std::span<float> per_token,
                                                const Tensor& logprob, const PolicyLossInput& input));
/// *sum += the sum of squares of g; `sum` is a scalar in backend memory.
ROLEGRAD_OPERATION(void sum_of_squares(double* sum, const GradTensor& g));
/// *sum += the sum of squares of x - y, of x alone where y has no data.
ROLEGRAD_OPERATION(void squared_distance(double* sum, const Tensor& x, const Tensor& y));
/// y += x.
ROLEGRAD_OPERATION(void add(const GradTensor& y, const GradTensor& x));
/// Decoupled weight decay Adam with torch's update rule; g is scaled by min(1, max_norm / (sqrt(*sum) + 1e-6)) first.
ROLEGRAD_OPERATION(void adamw(const Tensor& p, const GradTensor& g, const Tensor& m, const Tensor& v,
                              const AdamWStep& step, const double* sum_of_squares));

// ---- sampling
/// For each row of logits [B, V]: token[i], and logprob[i] = log softmax(logits / temperature)[token] before any
/// truncation. `draw` in [0, 1), one a row. Greedy (temperature 0) takes the first maximum and reports the logprob at
/// temperature 1.
ROLEGRAD_OPERATION(void sample(std::span<int32_t> token, std::span<float> logprob, const Tensor& logits,
                               std::span<const SamplingOptions> options, std::span<const double> draw));
