// The compiler of kernels: the host's, with the definitions that tests of kernels use (emulator/host.hpp). What it
// gives as PTX names a library with the functions that the sources export there.

#include <fstream>
#include <functional>
#include <sstream>
#include <sys/stat.h>
#include <unistd.h>

#include "simulator.hpp"

namespace {

struct Program {
    std::string source, ptx, log;
};

} // namespace

API int nvrtcCreateProgram(void **program, const char *source, const char *, int, const char *const *,
                           const char *const *) {
    return *program = new Program{source, {}, {}}, SUCCESS;
}
API int nvrtcCompileProgram(void *handle, int, const char *const *) {
    Program *program = (Program *)handle;
    const char *cache = getenv("SIMULATED_GPU_CACHE");
    std::string folder = cache ? cache : "/tmp";
    std::ostringstream name;
    name << folder << "/" << std::hex << std::hash<std::string>{}(program->source) << ".so";
    std::string library = name.str();
    program->ptx = "SIMULATED " + library;
    struct stat status;
    if (stat(library.c_str(), &status) == 0) return SUCCESS;
    std::string base = library + "." + std::to_string(getpid()) + "." + std::to_string((uintptr_t)program);
    std::ofstream(base + ".cpp") << "#include \"" HOST_HPP "\"\n" << program->source;
    const char *compiler = getenv("CXX");
    std::string command = std::string(compiler ? compiler : "g++") +
        " -std=c++17 -O2 -shared -fPIC -w -o " + base + " " + base + ".cpp > " + base + ".log 2>&1";
    bool failed = system(command.c_str()) != 0;
    std::stringstream log;
    log << std::ifstream(base + ".log").rdbuf();
    program->log = log.str();
    if (!failed) rename(base.c_str(), library.c_str());
    for (const char *ending : {".cpp", ".log"}) unlink((base + ending).c_str());
    return failed ? 6 /* NVRTC_ERROR_COMPILATION */ : SUCCESS;
}
API int nvrtcDestroyProgram(void **program) { return delete (Program *)*program, SUCCESS; }
API int nvrtcGetPTXSize(void *program, size_t *bytes) { return *bytes = ((Program *)program)->ptx.size() + 1, SUCCESS; }
API int nvrtcGetPTX(void *program, char *text) {
    return memcpy(text, ((Program *)program)->ptx.c_str(), ((Program *)program)->ptx.size() + 1), SUCCESS;
}
API int nvrtcGetProgramLogSize(void *program, size_t *bytes) {
    return *bytes = ((Program *)program)->log.size() + 1, SUCCESS;
}
API int nvrtcGetProgramLog(void *program, char *text) {
    return memcpy(text, ((Program *)program)->log.c_str(), ((Program *)program)->log.size() + 1), SUCCESS;
}
