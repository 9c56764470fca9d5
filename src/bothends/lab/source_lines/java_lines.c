// Write down which line a Java program executes, and when. The JVM loads this as an agent (JVM TI). `records.py` has
// the format and reads it.
//
// 1. Each line of the program's own classes has a breakpoint: a class whose source file is another, or that has no
//    line numbers, runs at its speed, and a call that it makes belongs to the line of the program that called it.
// 2. When a method of the program returns, the line of its caller is written down again: it may go on with a call.
// 3. Records go to memory that this process shares with the lab (mmap(2)): writing one is no system call.

#define _GNU_SOURCE
#include <jvmti.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>
#include <sys/syscall.h>
#include <time.h>
#include <unistd.h>

#define VARIABLE "BOTHENDS_LINES" // descriptor, size of a region, number of regions, the program's file
#define MAX_NAME 100

struct header {
    uint64_t count, in_use;
};

struct record {
    int64_t time;
    uint32_t thread, line;
};

static struct header *header;
static size_t room;
static char file[MAX_NAME];
static jrawMonitorID monitor;
static __thread uint32_t thread_id;

static void write_line(jvmtiEnv *jvmti, int line)
{
    if (thread_id == 0)
        thread_id = (uint32_t)syscall(SYS_gettid);
    struct timespec now;
    (*jvmti)->RawMonitorEnter(jvmti, monitor);
    clock_gettime(CLOCK_REALTIME, &now);
    struct record *records = (struct record *)(header + 1);
    uint64_t count = header->count;
    records[count % room] =
        (struct record){now.tv_sec * INT64_C(1000000000) + now.tv_nsec, thread_id, (uint32_t)line};
    __atomic_store_n(&header->count, count + 1, __ATOMIC_RELEASE);
    (*jvmti)->RawMonitorExit(jvmti, monitor);
}

static int is_own(jvmtiEnv *jvmti, jclass class)
{
    char *name = NULL;
    if ((*jvmti)->GetSourceFileName(jvmti, class, &name) != JVMTI_ERROR_NONE)
        return 0;
    int result = strcmp(name, file) == 0;
    (*jvmti)->Deallocate(jvmti, (unsigned char *)name);
    return result;
}

// Return the line of a place in a method, 0 if it has none.
static int line_of(jvmtiEnv *jvmti, jmethodID method, jlocation place)
{
    jvmtiLineNumberEntry *table = NULL;
    jint count = 0;
    int line = 0;
    if ((*jvmti)->GetLineNumberTable(jvmti, method, &count, &table) != JVMTI_ERROR_NONE)
        return 0;
    jlocation nearest = -1;
    for (jint entry = 0; entry < count; entry++)
        if (table[entry].start_location <= place && table[entry].start_location >= nearest) {
            nearest = table[entry].start_location;
            line = table[entry].line_number;
        }
    (*jvmti)->Deallocate(jvmti, (unsigned char *)table);
    return line;
}

static void JNICALL on_class(jvmtiEnv *jvmti, JNIEnv *jni, jthread thread, jclass class)
{
    (void)jni, (void)thread;
    jint count = 0;
    jmethodID *methods = NULL;
    if (!is_own(jvmti, class) || (*jvmti)->GetClassMethods(jvmti, class, &count, &methods) != JVMTI_ERROR_NONE)
        return;
    for (jint each = 0; each < count; each++) {
        jvmtiLineNumberEntry *table = NULL;
        jint lines = 0;
        if ((*jvmti)->GetLineNumberTable(jvmti, methods[each], &lines, &table) != JVMTI_ERROR_NONE)
            continue; // it is native or abstract
        for (jint entry = 0; entry < lines; entry++)
            (*jvmti)->SetBreakpoint(jvmti, methods[each], table[entry].start_location);
        (*jvmti)->Deallocate(jvmti, (unsigned char *)table);
    }
    (*jvmti)->Deallocate(jvmti, (unsigned char *)methods);
}

static void JNICALL on_line(jvmtiEnv *jvmti, JNIEnv *jni, jthread thread, jmethodID method, jlocation place)
{
    (void)jni;
    write_line(jvmti, line_of(jvmti, method, place));
    if (place == 0)
        (*jvmti)->NotifyFramePop(jvmti, thread, 0);
}

static void JNICALL on_return(jvmtiEnv *jvmti, JNIEnv *jni, jthread thread, jmethodID method,
                              jboolean by_exception)
{
    (void)method, (void)by_exception;
    for (jint depth = 1; depth < 50; depth++) {
        jmethodID caller;
        jlocation place;
        jclass class;
        if ((*jvmti)->GetFrameLocation(jvmti, thread, depth, &caller, &place) != JVMTI_ERROR_NONE)
            break;
        if (place < 0 || (*jvmti)->GetMethodDeclaringClass(jvmti, caller, &class) != JVMTI_ERROR_NONE)
            continue;
        int own = is_own(jvmti, class);
        (*jni)->DeleteLocalRef(jni, class);
        if (own) {
            write_line(jvmti, line_of(jvmti, caller, place));
            return;
        }
    }
    write_line(jvmti, 0);
}

// Only now: the classes of the JVM itself are loaded before this.
static void JNICALL on_ready(jvmtiEnv *jvmti, JNIEnv *jni, jthread thread)
{
    (void)jni, (void)thread;
    const jvmtiEvent events[] = {JVMTI_EVENT_CLASS_PREPARE, JVMTI_EVENT_BREAKPOINT, JVMTI_EVENT_FRAME_POP};
    for (size_t each = 0; each < sizeof events / sizeof *events; each++)
        (*jvmti)->SetEventNotificationMode(jvmti, JVMTI_ENABLE, events[each], NULL);
}

JNIEXPORT jint JNICALL Agent_OnLoad(JavaVM *vm, char *options, void *reserved)
{
    (void)options, (void)reserved;
    const char *description = getenv(VARIABLE);
    int descriptor = -1;
    unsigned long size = 0, count = 0;
    if (description == NULL || sscanf(description, "%d %lu %lu %99s", &descriptor, &size, &count, file) != 4)
        return JNI_OK;
    char *memory = mmap(NULL, size * count, PROT_READ | PROT_WRITE, MAP_SHARED, descriptor, 0);
    close(descriptor);
    unsetenv(VARIABLE);
    jvmtiEnv *jvmti = NULL;
    if (memory == MAP_FAILED || (*vm)->GetEnv(vm, (void **)&jvmti, JVMTI_VERSION_1_2) != JNI_OK)
        return JNI_OK;
    header = (struct header *)memory;
    room = (size - sizeof(struct header)) / sizeof(struct record);
    header->in_use = (uint64_t)getpid();
    jvmtiCapabilities wanted = {.can_generate_breakpoint_events = 1,
                                .can_generate_frame_pop_events = 1,
                                .can_get_line_numbers = 1,
                                .can_get_source_file_name = 1};
    jvmtiEventCallbacks callbacks = {
        .ClassPrepare = on_class, .Breakpoint = on_line, .FramePop = on_return, .VMInit = on_ready};
    if ((*jvmti)->AddCapabilities(jvmti, &wanted) != JVMTI_ERROR_NONE
        || (*jvmti)->CreateRawMonitor(jvmti, "lines", &monitor) != JVMTI_ERROR_NONE
        || (*jvmti)->SetEventCallbacks(jvmti, &callbacks, sizeof callbacks) != JVMTI_ERROR_NONE)
        return JNI_OK;
    (*jvmti)->SetEventNotificationMode(jvmti, JVMTI_ENABLE, JVMTI_EVENT_VM_INIT, NULL);
    return JNI_OK;
}
