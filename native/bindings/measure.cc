// What the benchmarks measure of the machine: its FMA peak and its bandwidth of reading.

#include <algorithm>
#include <chrono>

#include "bindings/engine.h"
#include "bindings/routed_linear.h"
#include "core/executor.h"
#include "ops/cpu/cpu_backend.h"
#include "ops/host_memory.h"

#if defined(__GLIBC__)
#include <malloc.h>
#endif

namespace rolegrad::bindings {
namespace {

double now() { return std::chrono::duration<double>(std::chrono::steady_clock::now().time_since_epoch()).count(); }

void poll(const std::atomic<bool>& stop) {
  if (stop.load()) throw Error("ERR_ABORTED", "The measurement was aborted");
}

const cpu::Kernels& kernels() { return static_cast<cpu::CpuBackend&>(*backend_named("cpu")).kernels(); }

/// measureFma() -> { isa, threads, gflops }: the best of several runs of independent FMA chains on all threads.
Napi::Value measure_fma(const Napi::CallbackInfo& info) {
  Napi::Env env = info.Env();
  return guard(env, [&]() -> Napi::Value {
    struct Out {
      std::string isa;
      int threads = 0;
      double gflops = 0;
    };
    auto out = std::make_shared<Out>();
    return run_async(
        env,
        [=](const std::atomic<bool>& stop) {
          const auto& k = kernels();
          auto& pool = Executor::shared();
          out->isa = k.isa;
          out->threads = pool.threads();
          std::vector<float> sink(size_t(pool.threads()) * 64);
          for (int run = 0; run < 24; run++) {
            poll(stop);
            constexpr int64_t kRounds = 4000000;  // 10 ms and more
            double flops = 0, start = now();
            pool.parallel_for(pool.threads(), [&](int64_t i, int) {
              double each = k.fma_rounds(kRounds, &sink[size_t(i) * 64]);
              if (i == 0) flops = each;
            });
            out->gflops = std::max(out->gflops, flops * kRounds * pool.threads() / (now() - start) / 1e9);
          }
        },
        [out](Napi::Env env) -> Napi::Value {
          auto o = Napi::Object::New(env);
          o.Set("isa", out->isa);
          o.Set("threads", out->threads);
          o.Set("gflops", out->gflops);
          return o;
        });
  });
}

/// measureRead(bytes) -> GB/s: the best of several runs in which all threads read a buffer of this size, each its own
/// part, again and again. Beyond the caches that is the memory's bandwidth; below, that of the cache which holds it.
Napi::Value measure_read(const Napi::CallbackInfo& info) {
  Napi::Env env = info.Env();
  return guard(env, [&]() -> Napi::Value {
    int64_t bytes = integer_argument(info[0], "bytes", 1 << 16, int64_t(1) << 36);
    auto best = std::make_shared<double>(0);
    return run_async(
        env,
        [=](const std::atomic<bool>& stop) {
          const auto& k = kernels();
          auto& pool = Executor::shared();
          int64_t part = bytes / 4 / pool.threads();
          std::vector<float> memory(size_t(part * pool.threads()), 1.0f), sink(size_t(pool.threads()) * 64);
          int64_t passes = std::max<int64_t>(1, (int64_t(64) << 20) / bytes);
          for (int run = 0; run < 12; run++) {
            poll(stop);
            double start = now();
            pool.parallel_for(pool.threads(), [&](int64_t i, int) {
              for (int64_t p = 0; p < passes; p++) k.read_memory(memory.data() + i * part, part, &sink[size_t(i) * 64]);
            });
            *best = std::max(*best, double(memory.size()) * 4 * double(passes) / (now() - start) / 1e9);
          }
        },
        [best](Napi::Env env) -> Napi::Value { return Napi::Number::New(env, *best); });
  });
}

/// trimMemory(): memory that the allocator keeps for later goes back to the system, so that peaks are those of one
/// case.
void trim_memory(const Napi::CallbackInfo&) {
#if defined(__GLIBC__)
  malloc_trim(0);
#endif
}

/// limitThreads(n): the executor computes with at most n threads from now on; no more than it has.
Napi::Value limit_threads(const Napi::CallbackInfo& info) {
  return guard(info.Env(), [&]() -> Napi::Value {
    Executor::shared().limit_threads(int(integer_argument(info[0], "n", 1, 256)));
    return info.Env().Undefined();
  });
}

/// memoryUse() -> { allocations, bytes }: blocks of backend memory asked for since the process began, bytes held now.
Napi::Value memory_use(const Napi::CallbackInfo& info) {
  auto o = Napi::Object::New(info.Env());
  o.Set("allocations", double(host_memory_use().allocations.load()));
  o.Set("bytes", double(host_memory_use().bytes.load()));
  return o;
}

}  // namespace

void register_measure(Napi::Env env, Napi::Object exports) {
  exports.Set("limitThreads", Napi::Function::New(env, limit_threads, "limitThreads"));
  exports.Set("measureFma", Napi::Function::New(env, measure_fma, "measureFma"));
  exports.Set("measureRead", Napi::Function::New(env, measure_read, "measureRead"));
  exports.Set("memoryUse", Napi::Function::New(env, memory_use, "memoryUse"));
  exports.Set("trimMemory", Napi::Function::New(env, trim_memory, "trimMemory"));
}

}  // namespace rolegrad::bindings
