#pragma once

#include <cstddef>
#include <string>

namespace rolegrad {

/// A file mapped read-only. Pages that have been packed are given back with release().
class MappedFile {
 public:
  explicit MappedFile(const std::string& path);
  ~MappedFile();
  MappedFile(const MappedFile&) = delete;
  MappedFile& operator=(const MappedFile&) = delete;

  const unsigned char* data() const { return data_; }
  size_t size() const { return size_; }
  /// Gives the resident pages back; they are read from the file again where somebody looks.
  void release() const { release(data_, size_); }
  /// Those that hold these bytes of it.
  void release(const void* begin, size_t bytes) const;

 private:
  const unsigned char* data_ = nullptr;
  size_t size_ = 0;
};

}  // namespace rolegrad
