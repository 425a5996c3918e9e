/* A stand-in for NVIDIA's libnvidia-ml.so.1: it says what the file STATE says at
 * each call, so that a test can change what is on the GPUs. Lines of the file:
 *   gpu UUID TOTAL_MIB USED_MIB DIVIDED
 *   mig GPU UUID TOTAL_MIB USED_MIB
 *   proc DEVICE PID MIB          (DEVICE: how many gpu and mig lines stand before)
 *   fail CODE                    (every call but the first returns this)
 */
#include <stdio.h>
#include <string.h>

typedef int ret;
enum { OK = 0, INVALID = 2, UNSUPPORTED = 3, NOT_FOUND = 6, SMALL = 7 };
struct device { char uuid[96]; unsigned long long total, used; unsigned divided; int parent; };
struct memory_v2 { unsigned version; unsigned long long total, reserved, free, used; };
struct process { unsigned pid; unsigned long long used; unsigned gpu, compute; };
struct utilization { unsigned gpu, memory; };

static struct device devices[32];
static struct { int device; struct process process; } processes[64];
static int device_count, process_count, failure;

static void look(void) {
    FILE *file = fopen(STATE, "r");
    char line[256];
    device_count = process_count = failure = 0;
    if (!file) { failure = 999; return; }
    while (fgets(line, sizeof line, file)) {
        struct device d = { .parent = -1 };
        struct process p = {0};
        int of;
        if (sscanf(line, "gpu %95s %llu %llu %u", d.uuid, &d.total, &d.used, &d.divided) == 4)
            devices[device_count++] = d;
        else if (sscanf(line, "mig %d %95s %llu %llu", &d.parent, d.uuid, &d.total, &d.used) == 4)
            devices[device_count++] = d;
        else if (sscanf(line, "proc %d %u %llu", &of, &p.pid, &p.used) == 3) {
            processes[process_count].device = of;
            p.used <<= 20;
            processes[process_count++].process = p;
        } else
            sscanf(line, "fail %d", &failure);
    }
    fclose(file);
}

/* A handle is the number of the device, counted from 1. */
static int of(void *handle) { return (int)(long)handle - 1; }
static ret find(int parent, unsigned index, void **handle) {
    for (int n = 0; n < device_count; n++)
        if (devices[n].parent == parent && index-- == 0) { *handle = (void *)(long)(n + 1); return OK; }
    return NOT_FOUND;
}

#define LOOK look(); if (failure) return failure
ret nvmlInit_v2(void) { return OK; }
ret nvmlShutdown(void) { return OK; }
ret nvmlSystemGetDriverVersion(char *text, unsigned length) { snprintf(text, length, "580.0"); return OK; }
ret nvmlDeviceGetCount_v2(unsigned *count) {
    LOOK;
    *count = 0;
    for (int n = 0; n < device_count; n++) *count += devices[n].parent < 0;
    return OK;
}
ret nvmlDeviceGetHandleByIndex_v2(unsigned index, void **handle) { LOOK; return find(-1, index, handle); }
ret nvmlDeviceGetMigMode(void *handle, unsigned *now, unsigned *later) {
    LOOK;
    *now = *later = devices[of(handle)].divided;
    return OK;
}
ret nvmlDeviceGetMaxMigDeviceCount(void *handle, unsigned *count) { LOOK; *count = 7; return OK; }
ret nvmlDeviceGetMigDeviceHandleByIndex(void *handle, unsigned index, void **part) {
    LOOK;
    int gpu = 0;
    for (int n = 0; n < of(handle); n++) gpu += devices[n].parent < 0;
    return find(gpu, index, part);
}
ret nvmlDeviceGetMemoryInfo_v2(void *handle, struct memory_v2 *info) {
    LOOK;
    struct device *d = &devices[of(handle)];
    /* As a driver does, it keeps a part for itself. */
    info->reserved = 512ULL << 20;
    info->total = (d->total << 20) + info->reserved;
    info->used = d->used << 20;
    info->free = (d->total - d->used) << 20;
    return OK;
}
ret nvmlDeviceGetUUID(void *handle, char *text, unsigned length) {
    LOOK;
    snprintf(text, length, "%s", devices[of(handle)].uuid);
    return OK;
}
ret nvmlDeviceGetName(void *handle, char *text, unsigned length) { LOOK; snprintf(text, length, "Fake H100"); return OK; }
ret nvmlDeviceGetUtilizationRates(void *handle, struct utilization *rates) { LOOK; rates->gpu = 37; rates->memory = 5; return OK; }
ret nvmlDeviceGetTemperature(void *handle, int sensor, unsigned *degrees) { LOOK; *degrees = 51; return OK; }
ret nvmlDeviceGetPowerUsage(void *handle, unsigned *milliwatts) { LOOK; *milliwatts = 123456; return OK; }
ret nvmlDeviceGetGraphicsRunningProcesses_v3(void *handle, unsigned *count, struct process *list) {
    LOOK;
    *count = 0;
    return OK;
}
ret nvmlDeviceGetComputeRunningProcesses_v3(void *handle, unsigned *count, struct process *list) {
    LOOK;
    unsigned room = *count, there = 0;
    for (int n = 0; n < process_count; n++)
        if (processes[n].device == of(handle) && there++ < room) list[there - 1] = processes[n].process;
    *count = there;
    return there > room ? SMALL : OK;
}
