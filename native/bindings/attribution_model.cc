// interferenceModel, interferenceModelAsync: what the random-effects model of native/attribution says of a table.

#include <memory>
#include <numeric>

#include "attribution/interference_model.h"
#include "bindings/bindings.h"
#include "bindings/run_async.h"

namespace rolegrad::bindings {
namespace {

using namespace rolegrad::attribution;

/// A table and options of its own, so that another thread can work on it.
struct Request {
  std::vector<std::int32_t> correct, samples, questions, clusters;
  CountTable table;
  ModelOptions options;
};

std::vector<std::int32_t> integers(const Napi::Object& object, const char* name) {
  const auto values = typed_array_argument<std::int32_t>(object.Get(name), name);
  return {values.begin(), values.end()};
}

/// (table: { correct, samples, questions, variantStride, questionStride }, options: { questions: Int32Array of those in
/// use, smoothing: 0 haldane | 1 laplace | 2 none, seed, nullDraws, level, clusters: Int32Array, one number for each
/// question in use, or empty })
std::shared_ptr<Request> request(const Napi::CallbackInfo& info) {
  const Napi::Object table = object_argument(info[0], "table"), options = object_argument(info[1], "options");
  auto result = std::make_shared<Request>();
  result->correct = integers(table, "correct");
  result->samples = integers(table, "samples");
  result->questions = integers(options, "questions");
  result->clusters = integers(options, "clusters");
  const auto size = [&](const char* name) {
    return static_cast<std::size_t>(integer_argument(table.Get(name), name, 0));
  };
  result->table = {result->correct, result->samples, size("questions"), size("variantStride"), size("questionStride")};
  check_table(result->table);
  for (const std::int32_t q : result->questions)
    if (q < 0 || static_cast<std::size_t>(q) >= result->table.questions)
      throw Error("ERR_INVALID_ARGUMENT",
                  "Expected numbers of the table's questions but received " + std::to_string(q));
  for (const std::int32_t c : result->clusters)
    if (result->clusters.size() != result->questions.size() || c < 0 ||
        static_cast<std::size_t>(c) >= result->clusters.size())
      throw Error("ERR_TABLE_CLUSTER", "Expected the number of a cluster for each question");
  ModelOptions& o = result->options;
  o.smoothing = static_cast<Smoothing>(integer_argument(options.Get("smoothing"), "smoothing", 0, 2));
  o.seed = static_cast<std::uint64_t>(integer_argument(options.Get("seed"), "seed", 0, (1LL << 53) - 1));
  o.null_draws = static_cast<std::size_t>(integer_argument(options.Get("nullDraws"), "nullDraws", 0, 1 << 20));
  o.level = number_argument(options.Get("level"), "level");
  o.clusters = result->clusters;
  return result;
}

Napi::Object to_object(Napi::Env env, const NullStatistic& statistic) {
  Napi::Object object = Napi::Object::New(env);
  object.Set("observed", statistic.observed);
  object.Set("value", statistic.value);
  object.Set("error", statistic.error);
  return object;
}

/// Shares of all draws.
Napi::Object to_object(Napi::Env env, const NullDistribution& distribution) {
  const auto draws = [](std::span<const std::int64_t> side) {
    return static_cast<double>(std::accumulate(side.begin(), side.end(), std::int64_t{0}));
  };
  const double all = static_cast<double>(distribution.zero) + draws(distribution.below) + draws(distribution.above);
  const auto shares = [&](std::span<const std::int64_t> side) {
    Napi::Float64Array values = Napi::Float64Array::New(env, side.size());
    for (std::size_t b = 0; b < side.size(); ++b) values[b] = static_cast<double>(side[b]) / all;
    return values;
  };
  Napi::Object object = Napi::Object::New(env);
  object.Set("width", NullDistribution::kWidth);
  object.Set("zero", all > 0 ? static_cast<double>(distribution.zero) / all : 0);
  object.Set("below", shares(distribution.below));
  object.Set("above", shares(distribution.above));
  return object;
}

Napi::Object to_object(Napi::Env env, const InterferenceModel& model) {
  Napi::Object object = Napi::Object::New(env);
  object.Set("converged", model.converged && model.null_converged);
  object.Set("oneStep", model.one_step);
  object.Set("mean23", model.mean23);
  object.Set("spread23", model.spread23);
  object.Set("questionsError", model.questions_error);
  object.Set("fixedError", model.fixed_error);
  object.Set("degreesOfFreedom", model.degrees_of_freedom);
  Napi::Object share = Napi::Object::New(env);
  share.Set("value", model.true_share.value);
  share.Set("low", model.true_share.low);
  share.Set("high", model.true_share.high);
  object.Set("trueShare", share);
  object.Set("share", to_object(env, model.null.share));
  object.Set("unsaturated", to_object(env, model.null.unsaturated));
  object.Set("median", to_object(env, model.null.median));
  object.Set("sign", to_object(env, model.null.sign));
  object.Set("ranks", to_object(env, model.null.ranks));
  object.Set("distribution", to_object(env, model.null.distribution));
  Napi::Object passes = Napi::Object::New(env);
  passes.Set("laplace", model.work.laplace);
  passes.Set("propagation", model.work.propagation);
  passes.Set("information", model.work.information);
  object.Set("passes", passes);
  object.Set("nullDraws", static_cast<double>(model.null.draws));
  return object;
}

Napi::Value model_sync(const Napi::CallbackInfo& info) {
  return guard(info.Env(), [&] {
    const auto job = request(info);
    return to_object(info.Env(), interference_model(job->table, job->questions, job->options));
  });
}

Napi::Value model_async(const Napi::CallbackInfo& info) {
  return guard(info.Env(), [&] {
    const auto job = request(info);
    const auto result = std::make_shared<InterferenceModel>();
    return run_async(
        info.Env(),
        [job, result](const StopFlag& stop) {
          job->options.stop = &stop;
          *result = interference_model(job->table, job->questions, job->options);
        },
        [result](Napi::Env env) { return to_object(env, *result); });
  });
}

}  // namespace

void register_attribution_model(Napi::Env env, Napi::Object exports) {
  exports.Set("interferenceModel", Napi::Function::New(env, model_sync, "interferenceModel"));
  exports.Set("interferenceModelAsync", Napi::Function::New(env, model_async, "interferenceModelAsync"));
}

}  // namespace rolegrad::bindings
