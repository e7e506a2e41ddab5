/* A libnvidia-ml.so.1 whose GPUs are lines of a file: real programs read it through real bindings.
 *
 * FAKE_NVML_STATE names the file. It is read again before every call, so a test changes a GPU under
 * a program that runs; write it to another name and rename it.
 *
 *   [system]              driver= nvml= cuda=  init_error=CODE  init_delay_ms=N  crash=1
 *   [gpu0] [gpu1] ...     the keys of `defaults`; a key set to nothing: not supported
 *                         fail=CODE  fail.FUNCTION=CODE  delay_ms=N  delay_ms.FUNCTION=N
 *                         procs=PID:BYTES,...  nvlinks=N  nvlink_down=N,...  nvlink_peer=GPU
 *                         slices=PROFILE:UUID:TOTAL:USED,...   (with mig_current=1)
 *   [all]                 the same keys, for every GPU that does not say otherwise
 *   [events]              NUMBER=gpuN,TYPE,DATA   told once, to sets that were made before
 *
 * Numbers, layouts and codes are those of NVIDIA's public nvml.h.
 */
#define _GNU_SOURCE
#include <pthread.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <strings.h>
#include <sys/stat.h>
#include <time.h>
#include <unistd.h>

enum { OK = 0, UNINITIALIZED = 1, INVALID = 2, NOT_SUPPORTED = 3, NO_PERMISSION = 4, NOT_FOUND = 6,
       TOO_SMALL = 7, TIMED_OUT = 10, LOST = 15, VERSION_MISMATCH = 25 };
enum { GPUS = 16, SLICES = 7, LINES = 2048 };
typedef unsigned int u32;
typedef unsigned long long u64;
typedef struct { int gpu, slice; } Device; /* slice -1: the whole GPU */
typedef struct { char section[16], key[64], value[512]; } Line;

static Line lines[LINES];
static int line_count, opened;
static struct stat seen;
static Device whole[GPUS], parts[GPUS][SLICES];
static pthread_mutex_t lock = PTHREAD_MUTEX_INITIALIZER;

static const char *const defaults[][2] = {
    {"name", "NVIDIA H100 80GB HBM3"}, {"mem_total", "85520809984"}, {"mem_used", "0"},
    {"mem_reserved", "579862528"}, {"bar1_total", "137438953472"}, {"bar1_used", "1048576"},
    {"util_gpu", "0"}, {"util_mem", "0"}, {"temp", "34"}, {"temp_mem", "42"}, {"temp_slowdown", "87"},
    {"temp_shutdown", "92"}, {"temp_max", "85"}, {"power", "71000"}, {"power_limit", "700000"},
    {"power_min", "200000"}, {"power_max", "700000"}, {"energy", "123456789"},
    {"clock_graphics", "345"}, {"clock_sm", "345"}, {"clock_mem", "2619"}, {"clock_video", "765"},
    {"clock_max_graphics", "1980"}, {"clock_max_sm", "1980"}, {"clock_max_mem", "2619"},
    {"clock_max_video", "1545"}, {"reasons", "0"}, {"fan", ""}, {"pstate", "0"}, {"ecc_mode", "1"},
    {"ecc_corr_vol", "0"}, {"ecc_unc_vol", "0"}, {"ecc_corr_agg", "0"}, {"ecc_unc_agg", "0"},
    {"remap_corr", "0"}, {"remap_unc", "0"}, {"remap_pending", "0"}, {"remap_failed", "0"},
    {"mig_current", "0"}, {"mig_pending", "0"}, {"mig_max", "7"}, {"cc_major", "9"}, {"cc_minor", "0"},
    {"persistence", "1"}, {"compute_mode", "0"}, {"display", "0"}, {"brand", "14"}, {"arch", "9"},
    {"serial", "1650423000000"}, {"vbios", "96.00.89.00.01"}, {"pcie_gen", "5"}, {"pcie_width", "16"},
    {"pcie_tx", "0"}, {"pcie_rx", "0"}, {"numa", "0"}, {"cores", "16896"}, {"nvlinks", "18"},
    {"nvlink_down", ""}, {"nvlink_peer", ""}, {"nvlink_errors", "0"}, {"procs", ""}, {"slices", ""},
    {"fail", "0"}, {"delay_ms", "0"}, {NULL, NULL}};

/* ---- the file ---- */
static char *trim(char *text) {
    text += strspn(text, " \t");
    for (size_t n = strlen(text); n && strchr(" \t\r\n", text[n - 1]); n--) text[n - 1] = 0;
    return text;
}
static void refresh(void) { /* under the lock */
    const char *path = getenv("FAKE_NVML_STATE");
    struct stat now;
    if (!path || stat(path, &now)) { line_count = 0; memset(&seen, 0, sizeof seen); return; }
    if (now.st_ino == seen.st_ino && now.st_size == seen.st_size &&
        now.st_mtim.tv_sec == seen.st_mtim.tv_sec && now.st_mtim.tv_nsec == seen.st_mtim.tv_nsec)
        return;
    FILE *file = fopen(path, "r");
    if (!file) return;
    char raw[640], section[16] = "";
    for (line_count = 0; fgets(raw, sizeof raw, file) && line_count < LINES;) {
        char *text = trim(raw), *equals = strchr(text, '=');
        Line *line = &lines[line_count];
        if (*text == '[') {
            text[strcspn(text, "]")] = 0;
            snprintf(section, sizeof section, "%.15s", text + 1);
            equals = "="; text = ""; /* an empty section is a GPU, too */
        } else if (*text == '#' || !equals) continue;
        else *equals++ = 0;
        snprintf(line->section, sizeof line->section, "%s", section);
        snprintf(line->key, sizeof line->key, "%.63s", trim(text));
        snprintf(line->value, sizeof line->value, "%.511s", *text ? trim(equals) : "");
        line_count++;
    }
    fclose(file);
    seen = now;
}
static int find(const char *section, const char *key, char *out, size_t size) {
    int found = 0;
    pthread_mutex_lock(&lock);
    refresh();
    for (int i = 0; i < line_count; i++)
        if (!strcmp(lines[i].section, section) && !strcmp(lines[i].key, key)) {
            snprintf(out, size, "%s", lines[i].value);
            found = 1;
        }
    pthread_mutex_unlock(&lock);
    return found;
}
static char *text_of(int gpu, const char *key, char *out, size_t size) {
    char section[16];
    snprintf(section, sizeof section, "gpu%d", gpu);
    if (find(section, key, out, size) || find("all", key, out, size)) return out;
    out[0] = 0;
    for (int i = 0; defaults[i][0]; i++)
        if (!strcmp(defaults[i][0], key)) snprintf(out, size, "%s", defaults[i][1]);
    return out;
}
static u64 number_of(int gpu, const char *key) {
    char text[512];
    return strtoull(text_of(gpu, key, text, sizeof text), NULL, 0);
}
static u64 system_number(const char *key, u64 otherwise) {
    char text[512];
    return find("system", key, text, sizeof text) ? strtoull(text, NULL, 0) : otherwise;
}
static int gpu_count(void) {
    char section[16], nothing[8];
    int count = 0;
    while (count < GPUS && (snprintf(section, sizeof section, "gpu%d", count), find(section, "", nothing, 8)))
        count++;
    return count;
}

/* ---- every call begins so ---- */
static void wait_ms(u64 ms) { if (ms) usleep((useconds_t)(ms * 1000)); }
static int greet(void) { return opened ? OK : UNINITIALIZED; }
static int enter(Device *device, const char *function) {
    char key[96], text[32];
    if (!opened) return UNINITIALIZED;
    if (system_number("crash", 0)) abort();
    if (!device || device->gpu < 0 || device->gpu >= gpu_count()) return INVALID;
    wait_ms(number_of(device->gpu, "delay_ms"));
    snprintf(key, sizeof key, "delay_ms.%s", function);
    wait_ms(number_of(device->gpu, key));
    int code = (int)number_of(device->gpu, "fail");
    if (code) return code;
    snprintf(key, sizeof key, "fail.%s", function);
    return atoi(text_of(device->gpu, key, text, sizeof text));
}
#define ENTER do { int code_ = enter(d, __func__); if (code_) return code_; } while (0)
#define API __attribute__((visibility("default"))) int
static int give_text(char *out, u32 size, const char *text) {
    if (!out) return INVALID;
    if (strlen(text) >= size) return TOO_SMALL;
    strcpy(out, text);
    return OK;
}
static int give_system(const char *key, const char *otherwise, char *out, u32 size) {
    char text[512];
    return opened ? give_text(out, size, find("system", key, text, sizeof text) ? text : otherwise) : UNINITIALIZED;
}

/* ---- the library ---- */
API nvmlInitWithFlags(u32 flags) {
    (void)flags;
    wait_ms(system_number("init_delay_ms", 0));
    int code = (int)system_number("init_error", 0);
    if (code) return code;
    for (int g = 0; g < GPUS; g++) {
        whole[g] = (Device){g, -1};
        for (int s = 0; s < SLICES; s++) parts[g][s] = (Device){g, s};
    }
    __sync_add_and_fetch(&opened, 1);
    return OK;
}
API nvmlInit_v2(void) { return nvmlInitWithFlags(0); }
API nvmlShutdown(void) { if (!opened) return UNINITIALIZED; __sync_sub_and_fetch(&opened, 1); return OK; }
__attribute__((visibility("default"))) const char *nvmlErrorString(int code) {
    switch (code) {
    case 3: return "Not Supported"; case 9: return "Driver Not Loaded"; case 15: return "GPU is lost";
    case 16: return "GPU requires reset"; case 18: return "Driver/library version mismatch";
    default: return "Unknown Error"; }
}
API nvmlSystemGetDriverVersion(char *out, u32 size) { return give_system("driver", "580.95.05", out, size); }
API nvmlSystemGetNVMLVersion(char *out, u32 size) { return give_system("nvml", "13.580.95.05", out, size); }
API nvmlSystemGetCudaDriverVersion_v2(int *out) { if (greet()) return UNINITIALIZED; *out = (int)system_number("cuda", 13000); return OK; }
API nvmlSystemGetCudaDriverVersion(int *out) { return nvmlSystemGetCudaDriverVersion_v2(out); }
API nvmlSystemGetProcessName(u32 pid, char *out, u32 size) {
    char path[64], name[64] = "";
    snprintf(path, sizeof path, "/proc/%u/comm", pid);
    FILE *file = fopen(path, "r");
    if (!file) return NOT_FOUND;
    char *got = fgets(name, sizeof name, file);
    fclose(file);
    return got ? give_text(out, size, trim(name)) : NOT_FOUND;
}

/* ---- GPUs and their names ---- */
API nvmlDeviceGetCount_v2(u32 *out) { if (greet()) return UNINITIALIZED; *out = (u32)gpu_count(); return OK; }
API nvmlDeviceGetHandleByIndex_v2(u32 index, Device **out) {
    char text[32];
    if (greet()) return UNINITIALIZED;
    if ((int)index >= gpu_count()) return INVALID;
    if (number_of((int)index, "fail") == LOST) return LOST;
    int code = atoi(text_of((int)index, "fail.nvmlDeviceGetHandleByIndex_v2", text, sizeof text));
    if (!code) *out = &whole[index];
    return code;
}
static void uuid_of(Device *d, char *out, size_t size) {
    if (*text_of(d->gpu, "uuid", out, size)) return;
    snprintf(out, size, "GPU-5e1f0000-0000-4000-8000-%012d", d->gpu);
}
static void bus_of(Device *d, char *out, size_t size) {
    if (*text_of(d->gpu, "pci", out, size)) return;
    snprintf(out, size, "00000000:%02X:00.0", 0x18 + d->gpu * 0x10);
}
static int slice_of(Device *d, char *profile, char *uuid, u64 *total, u64 *used) {
    char text[512], *rest, *part;
    int number = 0;
    text_of(d->gpu, "slices", text, sizeof text);
    for (part = strtok_r(text, ",", &rest); part; part = strtok_r(NULL, ",", &rest), number++)
        if (number == d->slice) return sscanf(part, "%31[^:]:%79[^:]:%llu:%llu", profile, uuid, total, used) == 4;
    return 0;
}
static int by_name(void (*name)(Device *, char *, size_t), const char *wanted, Device **out) {
    char text[512];
    if (greet()) return UNINITIALIZED;
    for (int g = 0; g < gpu_count(); g++) {
        name(&whole[g], text, sizeof text);
        if (!strcasecmp(text, wanted)) return nvmlDeviceGetHandleByIndex_v2((u32)g, out);
    }
    return NOT_FOUND;
}
API nvmlDeviceGetHandleByUUID(const char *uuid, Device **out) { return by_name(uuid_of, uuid, out); }
API nvmlDeviceGetHandleByPciBusId_v2(const char *bus, Device **out) { return by_name(bus_of, bus, out); }
API nvmlDeviceGetIndex(Device *d, u32 *out) { ENTER; *out = (u32)(d->slice < 0 ? d->gpu : d->slice); return OK; }
API nvmlDeviceGetMinorNumber(Device *d, u32 *out) { ENTER; *out = (u32)d->gpu; return OK; }
API nvmlDeviceGetUUID(Device *d, char *out, u32 size) {
    ENTER;
    char uuid[512], profile[32];
    u64 total, used;
    if (d->slice >= 0) return slice_of(d, profile, uuid, &total, &used) ? give_text(out, size, uuid) : NOT_FOUND;
    uuid_of(d, uuid, sizeof uuid);
    return give_text(out, size, uuid);
}
API nvmlDeviceGetName(Device *d, char *out, u32 size) {
    ENTER;
    char name[512], uuid[80], profile[32], full[560];
    u64 total, used;
    text_of(d->gpu, "name", name, sizeof name);
    if (d->slice < 0) return give_text(out, size, name);
    if (!slice_of(d, profile, uuid, &total, &used)) return NOT_FOUND;
    snprintf(full, sizeof full, "%s MIG %s", name, profile);
    return give_text(out, size, full);
}
typedef struct { char legacy[16]; u32 domain, bus, device, id, subsystem; char full[32]; } Pci;
static void fill_pci(Pci *out, const char *bus) {
    memset(out, 0, sizeof *out);
    snprintf(out->full, sizeof out->full, "%.31s", bus);
    snprintf(out->legacy, sizeof out->legacy, "%.15s", strlen(bus) > 12 ? bus + 4 : bus);
    sscanf(bus, "%x:%x:%x", &out->domain, &out->bus, &out->device);
    out->id = 0x233010DE;
}
API nvmlDeviceGetPciInfo_v3(Device *d, Pci *out) { ENTER; char bus[512]; bus_of(d, bus, sizeof bus); fill_pci(out, bus); return OK; }
#define TEXT(function, key) API function(Device *d, char *out, u32 size) { \
    ENTER; char text[512]; return give_text(out, size, text_of(d->gpu, key, text, sizeof text)); }
TEXT(nvmlDeviceGetSerial, "serial")
TEXT(nvmlDeviceGetVbiosVersion, "vbios")

/* ---- figures ---- */
#define FIGURE(function, type, key) API function(Device *d, type *out) { \
    ENTER; char text[512]; if (!*text_of(d->gpu, key, text, sizeof text)) return NOT_SUPPORTED; \
    *out = (type)strtoull(text, NULL, 0); return OK; }
FIGURE(nvmlDeviceGetPowerUsage, u32, "power")
FIGURE(nvmlDeviceGetEnforcedPowerLimit, u32, "power_limit")
FIGURE(nvmlDeviceGetPowerManagementLimit, u32, "power_limit")
FIGURE(nvmlDeviceGetPowerManagementDefaultLimit, u32, "power_limit")
FIGURE(nvmlDeviceGetTotalEnergyConsumption, u64, "energy")
FIGURE(nvmlDeviceGetPerformanceState, u32, "pstate")
FIGURE(nvmlDeviceGetFanSpeed, u32, "fan")
FIGURE(nvmlDeviceGetPersistenceMode, u32, "persistence")
FIGURE(nvmlDeviceGetComputeMode, u32, "compute_mode")
FIGURE(nvmlDeviceGetDisplayActive, u32, "display")
FIGURE(nvmlDeviceGetDisplayMode, u32, "display")
FIGURE(nvmlDeviceGetBrand, u32, "brand")
FIGURE(nvmlDeviceGetArchitecture, u32, "arch")
FIGURE(nvmlDeviceGetNumaNodeId, u32, "numa")
FIGURE(nvmlDeviceGetNumGpuCores, u32, "cores")
FIGURE(nvmlDeviceGetCurrPcieLinkGeneration, u32, "pcie_gen")
FIGURE(nvmlDeviceGetMaxPcieLinkGeneration, u32, "pcie_gen")
FIGURE(nvmlDeviceGetCurrPcieLinkWidth, u32, "pcie_width")
FIGURE(nvmlDeviceGetMaxPcieLinkWidth, u32, "pcie_width")
FIGURE(nvmlDeviceGetCurrentClocksEventReasons, u64, "reasons")
FIGURE(nvmlDeviceGetCurrentClocksThrottleReasons, u64, "reasons")
FIGURE(nvmlDeviceGetMaxMigDeviceCount, u32, "mig_max")
API nvmlDeviceGetPcieThroughput(Device *d, u32 counter, u32 *out) { ENTER; *out = (u32)number_of(d->gpu, counter ? "pcie_rx" : "pcie_tx"); return OK; }
API nvmlDeviceGetPowerManagementLimitConstraints(Device *d, u32 *low, u32 *high) {
    ENTER; *low = (u32)number_of(d->gpu, "power_min"); *high = (u32)number_of(d->gpu, "power_max"); return OK; }
API nvmlDeviceGetTemperature(Device *d, u32 sensor, u32 *out) {
    ENTER; char text[512]; if (sensor) return INVALID;
    if (!*text_of(d->gpu, "temp", text, sizeof text)) return NOT_SUPPORTED;
    *out = (u32)atoi(text); return OK; }
typedef struct { u32 version, sensor; int celsius; } Temperature;
API nvmlDeviceGetTemperatureV(Device *d, Temperature *out) { ENTER; out->celsius = (int)number_of(d->gpu, "temp"); return OK; }
API nvmlDeviceGetTemperatureThreshold(Device *d, u32 kind, u32 *out) {
    ENTER; *out = (u32)number_of(d->gpu, kind == 0 ? "temp_shutdown" : kind == 1 ? "temp_slowdown" : "temp_max"); return OK; }
static const char *const clocks[] = {"clock_graphics", "clock_sm", "clock_mem", "clock_video"};
static const char *const clocks_max[] = {"clock_max_graphics", "clock_max_sm", "clock_max_mem", "clock_max_video"};
API nvmlDeviceGetClockInfo(Device *d, u32 kind, u32 *out) { ENTER; if (kind > 3) return INVALID; *out = (u32)number_of(d->gpu, clocks[kind]); return OK; }
API nvmlDeviceGetMaxClockInfo(Device *d, u32 kind, u32 *out) { ENTER; if (kind > 3) return INVALID; *out = (u32)number_of(d->gpu, clocks_max[kind]); return OK; }
typedef struct { u32 gpu, memory; } Utilisation;
API nvmlDeviceGetUtilizationRates(Device *d, Utilisation *out) {
    ENTER; if (d->slice >= 0) return NOT_SUPPORTED;
    out->gpu = (u32)number_of(d->gpu, "util_gpu"); out->memory = (u32)number_of(d->gpu, "util_mem"); return OK; }
API nvmlDeviceGetEncoderUtilization(Device *d, u32 *out, u32 *us) { ENTER; *out = 0; *us = 167000; return OK; }
API nvmlDeviceGetDecoderUtilization(Device *d, u32 *out, u32 *us) { ENTER; *out = 0; *us = 167000; return OK; }
API nvmlDeviceGetCudaComputeCapability(Device *d, int *major, int *minor) {
    ENTER; *major = (int)number_of(d->gpu, "cc_major"); *minor = (int)number_of(d->gpu, "cc_minor"); return OK; }

/* ---- processes and memory ---- */
typedef struct { u32 pid; u64 used; u32 instance, compute; } Process;
static u32 processes(int gpu, Process *out, u32 room) {
    char text[512], *rest, *part;
    u32 count = 0;
    text_of(gpu, "procs", text, sizeof text);
    for (part = strtok_r(text, ",", &rest); part; part = strtok_r(NULL, ",", &rest)) {
        Process found = {0, 0, ~0u, ~0u};
        if (sscanf(part, "%u:%llu", &found.pid, &found.used) != 2) continue;
        if (count < room) out[count] = found;
        count++;
    }
    return count;
}
static u64 used_of(int gpu) {
    Process all[64];
    u64 used = number_of(gpu, "mem_used");
    for (u32 n = processes(gpu, all, 64), i = 0; i < n && i < 64; i++) used += all[i].used;
    return used;
}
API nvmlDeviceGetComputeRunningProcesses_v3(Device *d, u32 *count, Process *out) {
    ENTER; u32 room = out ? *count : 0; *count = processes(d->gpu, out, room); return *count > room ? TOO_SMALL : OK; }
API nvmlDeviceGetGraphicsRunningProcesses_v3(Device *d, u32 *count, Process *out) { ENTER; (void)out; *count = 0; return OK; }
API nvmlDeviceGetMPSComputeRunningProcesses_v3(Device *d, u32 *count, Process *out) { ENTER; (void)out; *count = 0; return OK; }
API nvmlDeviceGetProcessUtilization(Device *d, void *out, u32 *count, u64 since) { ENTER; (void)out; (void)since; *count = 0; return NOT_FOUND; }
typedef struct { u64 total, free, used; } Memory;
typedef struct { u32 version; u64 total, reserved, free, used; } Memory2;
static int memory_of(Device *d, u64 *total, u64 *reserved, u64 *used) {
    char profile[32], uuid[80];
    *reserved = d->slice < 0 ? number_of(d->gpu, "mem_reserved") : 0;
    if (d->slice >= 0) return slice_of(d, profile, uuid, total, used) ? OK : NOT_FOUND;
    *total = number_of(d->gpu, "mem_total"); *used = used_of(d->gpu);
    return OK;
}
API nvmlDeviceGetMemoryInfo(Device *d, Memory *out) {
    ENTER; u64 total, reserved, used; int code = memory_of(d, &total, &reserved, &used);
    if (!code) *out = (Memory){total, total - reserved - used, reserved + used};
    return code; }
API nvmlDeviceGetMemoryInfo_v2(Device *d, Memory2 *out) {
    ENTER; u64 total, reserved, used; int code = memory_of(d, &total, &reserved, &used);
    if (out->version != 0x02000028) return VERSION_MISMATCH;
    if (!code) *out = (Memory2){out->version, total, reserved, total - reserved - used, used};
    return code; }
API nvmlDeviceGetBAR1MemoryInfo(Device *d, Memory *out) {
    ENTER; u64 total = number_of(d->gpu, "bar1_total"), used = number_of(d->gpu, "bar1_used");
    *out = (Memory){total, total - used, used}; return OK; }

/* ---- errors of the memory ---- */
API nvmlDeviceGetEccMode(Device *d, u32 *now, u32 *next) { ENTER; *now = *next = (u32)number_of(d->gpu, "ecc_mode"); return OK; }
API nvmlDeviceGetTotalEccErrors(Device *d, u32 kind, u32 counter, u64 *out) {
    ENTER; if (kind > 1 || counter > 1) return INVALID;
    if (!number_of(d->gpu, "ecc_mode")) return NOT_SUPPORTED;
    static const char *const keys[2][2] = {{"ecc_corr_vol", "ecc_corr_agg"}, {"ecc_unc_vol", "ecc_unc_agg"}};
    *out = number_of(d->gpu, keys[kind][counter]); return OK; }
API nvmlDeviceGetMemoryErrorCounter(Device *d, u32 kind, u32 counter, u32 place, u64 *out) { (void)place; return nvmlDeviceGetTotalEccErrors(d, kind, counter, out); }
API nvmlDeviceGetRemappedRows(Device *d, u32 *corrected, u32 *uncorrected, u32 *pending, u32 *failed) {
    ENTER; char text[512]; if (!*text_of(d->gpu, "remap_corr", text, sizeof text)) return NOT_SUPPORTED;
    *corrected = (u32)atoi(text); *uncorrected = (u32)number_of(d->gpu, "remap_unc");
    *pending = (u32)number_of(d->gpu, "remap_pending"); *failed = (u32)number_of(d->gpu, "remap_failed"); return OK; }

/* ---- MIG ---- */
API nvmlDeviceGetMigMode(Device *d, u32 *now, u32 *next) {
    ENTER; char text[512]; if (!*text_of(d->gpu, "mig_current", text, sizeof text)) return NOT_SUPPORTED;
    *now = (u32)atoi(text); *next = (u32)number_of(d->gpu, "mig_pending"); return OK; }
API nvmlDeviceGetMigDeviceHandleByIndex(Device *d, u32 index, Device **out) {
    ENTER; char profile[32], uuid[80]; u64 total, used;
    if (index >= SLICES) return INVALID;
    if (!slice_of(&parts[d->gpu][index], profile, uuid, &total, &used)) return NOT_FOUND;
    *out = &parts[d->gpu][index]; return OK; }
API nvmlDeviceIsMigDeviceHandle(Device *d, u32 *out) { ENTER; *out = d->slice >= 0; return OK; }
API nvmlDeviceGetDeviceHandleFromMigDeviceHandle(Device *d, Device **out) { ENTER; *out = &whole[d->gpu]; return OK; }

/* ---- NVLink ---- */
static int link_is_down(int gpu, u32 link) {
    char text[512], *rest, *part;
    text_of(gpu, "nvlink_down", text, sizeof text);
    for (part = strtok_r(text, ",", &rest); part; part = strtok_r(NULL, ",", &rest))
        if ((u32)atoi(part) == link) return 1;
    return 0;
}
API nvmlDeviceGetNvLinkState(Device *d, u32 link, u32 *out) {
    ENTER; if (link >= 18) return INVALID; if (link >= number_of(d->gpu, "nvlinks")) return NOT_SUPPORTED;
    *out = !link_is_down(d->gpu, link); return OK; }
API nvmlDeviceGetNvLinkVersion(Device *d, u32 link, u32 *out) { ENTER; if (link >= number_of(d->gpu, "nvlinks")) return NOT_SUPPORTED; *out = 4; return OK; }
API nvmlDeviceGetNvLinkErrorCounter(Device *d, u32 link, u32 counter, u64 *out) {
    ENTER; (void)counter; if (link >= number_of(d->gpu, "nvlinks")) return NOT_SUPPORTED; *out = number_of(d->gpu, "nvlink_errors"); return OK; }
API nvmlDeviceGetNvLinkRemotePciInfo_v2(Device *d, u32 link, Pci *out) {
    ENTER; char peer[512], bus[512];
    if (link >= number_of(d->gpu, "nvlinks")) return NOT_SUPPORTED;
    if (*text_of(d->gpu, "nvlink_peer", peer, sizeof peer)) bus_of(&whole[atoi(peer) % GPUS], bus, sizeof bus);
    else snprintf(bus, sizeof bus, "00000000:%02X:00.0", 0xC0 + (int)(link % 4)); /* a switch */
    fill_pci(out, bus); return OK; }
API nvmlDeviceGetTopologyCommonAncestor(Device *d, Device *other, u32 *out) { ENTER; *out = d == other ? 0 : 40; return OK; }

/* ---- fields: memory temperature (82), energy (83), NVLinks (91), power (185, 186) ---- */
typedef struct { u32 field, scope; long long at, took_us; u32 type; int code; union { u32 small; u64 large; } value; } Field;
API nvmlDeviceGetFieldValues(Device *d, int count, Field *out) {
    ENTER;
    for (Field *f = out; f < out + count; f++) {
        f->at = (long long)time(NULL) * 1000000; f->took_us = 0; f->code = OK; f->type = 1; f->value.large = 0;
        switch (f->field) {
        case 82: f->value.small = (u32)number_of(d->gpu, "temp_mem"); break;
        case 83: f->type = 3; f->value.large = number_of(d->gpu, "energy"); break;
        case 91: f->value.small = (u32)number_of(d->gpu, "nvlinks"); break;
        case 185: case 186: f->value.small = (u32)number_of(d->gpu, "power"); break;
        default: f->code = NOT_SUPPORTED; }
    }
    return OK;
}

/* ---- events ---- */
typedef struct { u64 wanted[GPUS]; long told; } Set;
typedef struct { Device *device; u64 type, data; u32 instance, compute; } Event;
static long next_event(long after, char *out, size_t size) { /* 0: none */
    long best = 0;
    pthread_mutex_lock(&lock);
    refresh();
    for (int i = 0; i < line_count; i++) {
        long number = atol(lines[i].key);
        if (!strcmp(lines[i].section, "events") && number > after && (!best || number < best)) {
            best = number;
            snprintf(out, size, "%s", lines[i].value);
        }
    }
    pthread_mutex_unlock(&lock);
    return best;
}
API nvmlEventSetCreate(Set **out) {
    char text[512];
    if (greet()) return UNINITIALIZED;
    Set *set = calloc(1, sizeof *set);
    if (!set) return INVALID;
    for (long n = 0; (n = next_event(n, text, sizeof text));) set->told = n;
    *out = set;
    return OK;
}
API nvmlDeviceGetSupportedEventTypes(Device *d, u64 *out) { ENTER; *out = 0x1FB; return OK; }
API nvmlDeviceRegisterEvents(Device *d, u64 types, Set *set) { ENTER; set->wanted[d->gpu] |= types; return OK; }
API nvmlEventSetFree(Set *set) { free(set); return OK; }
API nvmlEventSetWait_v2(Set *set, Event *out, u32 ms) {
    if (greet()) return UNINITIALIZED;
    for (long left = (long)ms;; left -= 20) {
        char text[512];
        for (long n; (n = next_event(set->told, text, sizeof text));) {
            u32 gpu = GPUS;
            u64 type = 0, data = 0;
            set->told = n;
            if (sscanf(text, "gpu%u,%llu,%llu", &gpu, &type, &data) != 3 || gpu >= GPUS) continue;
            if (!(set->wanted[gpu] & type)) continue;
            *out = (Event){&whole[gpu], type, data, ~0u, ~0u};
            return OK;
        }
        for (int g = 0; g < GPUS; g++)
            if (set->wanted[g] && number_of(g, "fail") == LOST) return LOST;
        if (left <= 0) return TIMED_OUT;
        usleep((useconds_t)(left < 20 ? left : 20) * 1000);
    }
}
