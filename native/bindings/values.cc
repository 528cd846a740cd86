// Errors and arguments between JavaScript and C++ (declared in bindings.h).

#include <cmath>
#include <map>
#include <new>
#include <stdexcept>

#include "bindings/bindings.h"

namespace rolegrad::bindings {
namespace {

constexpr const char* kErrorClass = "RolegradError";

struct Environment {
  std::map<std::string, Napi::FunctionReference> constructors;
};

const char* type_name(napi_typedarray_type type) {
  switch (type) {
    case napi_int8_array:
      return "Int8Array";
    case napi_uint8_array:
      return "Uint8Array";
    case napi_uint8_clamped_array:
      return "Uint8ClampedArray";
    case napi_int16_array:
      return "Int16Array";
    case napi_uint16_array:
      return "Uint16Array";
    case napi_int32_array:
      return "Int32Array";
    case napi_uint32_array:
      return "Uint32Array";
    case napi_float32_array:
      return "Float32Array";
    case napi_float64_array:
      return "Float64Array";
    case napi_bigint64_array:
      return "BigInt64Array";
    case napi_biguint64_array:
      return "BigUint64Array";
    default:
      return "typed array";
  }
}

napi_typedarray_type type_of(const Napi::Value& value) {
  napi_typedarray_type type = napi_int8_array;
  napi_get_typedarray_info(value.Env(), value, &type, nullptr, nullptr, nullptr, nullptr);
  return type;
}

}  // namespace

Napi::FunctionReference& constructor(Napi::Env env, const std::string& name) {
  auto* data = env.GetInstanceData<Environment>();
  if (data == nullptr) env.SetInstanceData(data = new Environment);
  return data->constructors[name];
}

Napi::Error make_error(Napi::Env env, const std::string& code, const std::string& message) {
  const Napi::FunctionReference& error_class = constructor(env, kErrorClass);
  if (!error_class.IsEmpty()) {
    const Napi::Object error = error_class.New({Napi::String::New(env, code), Napi::String::New(env, message)});
    return Napi::Error(env, error);
  }
  Napi::Error error = Napi::Error::New(env, message);
  error.Set("code", Napi::String::New(env, code));
  return error;
}

Napi::Error to_js_error(Napi::Env env, std::exception_ptr exception, const std::string& asked) {
  const auto out_of_memory = [&](const std::string& what) {
    return make_error(env, "ERR_OUT_OF_MEMORY", asked.empty() ? what : what + " (for " + asked + ")");
  };
  try {
    std::rethrow_exception(exception);
  } catch (const Napi::Error& error) {
    return error;
  } catch (const Error& error) {
    if (error.code() == "ERR_OUT_OF_MEMORY") return out_of_memory(error.what());
    return make_error(env, error.code(), error.what());
  } catch (const std::bad_alloc&) {
    return out_of_memory("Expected memory for the engine's work but the system refused it");
  } catch (const std::length_error&) {
    return out_of_memory("Expected a size that memory can have but received a larger one");
  } catch (const std::exception& error) {
    return make_error(env, "ERR_INTERNAL", error.what());
  } catch (...) {
    return make_error(env, "ERR_INTERNAL", "Unknown exception in the engine");
  }
}

std::string describe(const Napi::Value& value) {
  switch (value.Type()) {
    case napi_undefined:
      return "undefined";
    case napi_null:
      return "null";
    case napi_number:
    case napi_boolean:
      return value.ToString();
    case napi_string:
      return "a string";
    case napi_symbol:
      return "a symbol";
    case napi_function:
      return "a function";
    case napi_bigint:
      return "a BigInt";
    default:
      break;
  }
  if (value.IsTypedArray()) return type_name(type_of(value));
  if (value.IsArray()) return "an array";
  return "an object";
}

void expected(const std::string& what, const std::string& name, const Napi::Value& received) {
  throw make_error(received.Env(), "ERR_INVALID_ARGUMENT",
                   "Expected " + what + " for " + name + " but received " + describe(received));
}

double number_argument(const Napi::Value& value, const std::string& name) {
  if (!value.IsNumber()) expected("a number", name, value);
  return value.As<Napi::Number>().DoubleValue();
}

std::int64_t integer_argument(const Napi::Value& value, const std::string& name, std::int64_t low, std::int64_t high) {
  const double number = value.IsNumber() ? value.As<Napi::Number>().DoubleValue() : std::nan("");
  // Written so that NaN fails; 2^53 keeps the conversion exact.
  const bool whole = number >= -9007199254740992.0 && number <= 9007199254740992.0 && number == std::floor(number);
  if (!whole || static_cast<std::int64_t>(number) < low || static_cast<std::int64_t>(number) > high)
    expected("an integer from " + std::to_string(low) + " to " + std::to_string(high), name, value);
  return static_cast<std::int64_t>(number);
}

bool boolean_argument(const Napi::Value& value, const std::string& name) {
  if (!value.IsBoolean()) expected("a boolean", name, value);
  return value.As<Napi::Boolean>().Value();
}

std::string string_argument(const Napi::Value& value, const std::string& name) {
  if (!value.IsString()) expected("a string", name, value);
  return value.As<Napi::String>().Utf8Value();
}

Napi::Function function_argument(const Napi::Value& value, const std::string& name) {
  if (!value.IsFunction()) expected("a function", name, value);
  return value.As<Napi::Function>();
}

Napi::Object object_argument(const Napi::Value& value, const std::string& name) {
  if (!value.IsObject() || value.IsFunction() || value.IsArray()) expected("an object", name, value);
  return value.As<Napi::Object>();
}

Napi::Array array_argument(const Napi::Value& value, const std::string& name) {
  if (!value.IsArray()) expected("an array", name, value);
  return value.As<Napi::Array>();
}

Napi::ArrayBuffer array_buffer(Napi::Env env, std::size_t elements, std::size_t width) {
  constexpr std::size_t kLarge = std::size_t(1) << 20;  // below, a failure ends any program
  const double bytes = static_cast<double>(elements) * static_cast<double>(width);
  if (bytes <= kLarge) return Napi::ArrayBuffer::New(env, elements * width);
  try {
    if (elements >= std::size_t(1) << 32) throw std::bad_alloc();  // V8's longest typed array
    return env.Global()
        .Get("ArrayBuffer")
        .As<Napi::Function>()
        .New({Napi::Number::New(env, bytes)})
        .As<Napi::ArrayBuffer>();
  } catch (const std::exception&) {
    throw Error("ERR_OUT_OF_MEMORY", "Expected a result of " + std::to_string(elements * width) +
                                         " bytes but JavaScript has no room for it");
  }
}

Bytes typed_array_bytes(const Napi::Value& value, napi_typedarray_type type, const std::string& name) {
  const std::string wanted = type_name(type);
  if (!value.IsTypedArray() || type_of(value) != type) expected(wanted, name, value);
  Bytes bytes{nullptr, 0};
  napi_value buffer = nullptr;
  const napi_status status =
      napi_get_typedarray_info(value.Env(), value, nullptr, &bytes.elements, &bytes.data, &buffer, nullptr);
  if (status != napi_ok) throw Napi::Error::New(value.Env());
  const auto refuse = [&](const char* what) {
    throw make_error(value.Env(), "ERR_INVALID_ARGUMENT",
                     "Expected " + wanted + " for " + name + " but received one on " + what + " buffer");
  };
  // A SharedArrayBuffer is no ArrayBuffer to Node-API.
  const Napi::Value owner(value.Env(), buffer);
  if (!owner.IsArrayBuffer()) refuse("a shared");
  if (owner.As<Napi::ArrayBuffer>().IsDetached()) refuse("a detached");
  const Napi::Value resizable = owner.As<Napi::Object>().Get("resizable");
  if (resizable.IsBoolean() && resizable.As<Napi::Boolean>().Value()) refuse("a resizable");
  return bytes;
}

}  // namespace rolegrad::bindings
