#include "core/mapped_file.h"

#include <cerrno>
#include <cstring>

#include "core/error.h"

#if defined(_WIN32)
#include <windows.h>
#else
#include <fcntl.h>
#include <sys/mman.h>
#include <sys/stat.h>
#include <unistd.h>
#endif

namespace rolegrad {

#if defined(_WIN32)

MappedFile::MappedFile(const std::string& path) {
  HANDLE file =
      CreateFileA(path.c_str(), GENERIC_READ, FILE_SHARE_READ, nullptr, OPEN_EXISTING, FILE_ATTRIBUTE_NORMAL, nullptr);
  if (file == INVALID_HANDLE_VALUE) throw Error("ERR_FILE", "Cannot open " + path);
  LARGE_INTEGER size;
  GetFileSizeEx(file, &size);
  size_ = size_t(size.QuadPart);
  HANDLE mapping = size_ ? CreateFileMappingA(file, nullptr, PAGE_READONLY, 0, 0, nullptr) : nullptr;
  if (mapping) data_ = static_cast<const unsigned char*>(MapViewOfFile(mapping, FILE_MAP_READ, 0, 0, 0));
  if (mapping) CloseHandle(mapping);
  CloseHandle(file);
  if (size_ && !data_) throw Error("ERR_FILE", "Cannot map " + path);
}

MappedFile::~MappedFile() {
  if (data_) UnmapViewOfFile(data_);
}

void MappedFile::release(const void*, size_t) const {}

#else

MappedFile::MappedFile(const std::string& path) {
  int file = open(path.c_str(), O_RDONLY | O_CLOEXEC);
  if (file < 0) throw Error("ERR_FILE", "Cannot open " + path + ": " + std::strerror(errno));
  struct stat info{};
  if (fstat(file, &info) != 0 || !S_ISREG(info.st_mode)) {
    close(file);
    throw Error("ERR_FILE", "Expected a regular file but received " + path);
  }
  size_ = size_t(info.st_size);
  if (size_ > 0) {
    void* at = mmap(nullptr, size_, PROT_READ, MAP_PRIVATE, file, 0);
    int why = errno;
    close(file);
    if (at == MAP_FAILED) throw Error("ERR_FILE", "Cannot map " + path + ": " + std::strerror(why));
    data_ = static_cast<const unsigned char*>(at);
  } else {
    close(file);
  }
}

MappedFile::~MappedFile() {
  if (data_) munmap(const_cast<unsigned char*>(data_), size_);
}

void MappedFile::release(const void* begin, size_t bytes) const {
  if (!data_ || bytes == 0) return;
  // Whole pages: a neighbour's bytes on the first and last one are read again when they are looked at.
  const auto page = size_t(sysconf(_SC_PAGESIZE));
  const auto from = size_t(static_cast<const unsigned char*>(begin) - data_);
  const size_t first = from / page * page;
  madvise(const_cast<unsigned char*>(data_) + first, from + bytes - first, MADV_DONTNEED);
}

#endif

}  // namespace rolegrad
