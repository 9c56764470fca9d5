// Write down from where a program calls functions of libraries, and when. The dynamic linker loads this into the
// program as an auditing library (rtld-audit(7)). `records.py` has the format and reads it; a record's "line" is the
// return address, less the address at which the program is loaded, and `addresses.py` makes lines of it.
//
// 1. Only calls by the program itself are seen, not those among libraries: a system call that printf() makes belongs
//    to the line with printf(). A call is seen before it is made, so also one that never returns.
// 2. Records go to memory that this process shares with the lab (mmap(2)): writing one is no system call.
// 3. A child process writes to a region of its own, if one is left. It notices that it is one by a page that is zero
//    in it (madvise(2), MADV_WIPEONFORK).
// 4. Nothing stays in the environment, so programs that the program executes are not audited.

#define _GNU_SOURCE
#include <link.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>
#include <sys/syscall.h>
#include <time.h>
#include <unistd.h>

#define VARIABLE "BOTHENDS_LINES" // descriptor, size of a region, number of regions, the program's file
#define MAX_SPIN 10000            // a signal handler may find the lock taken by its own thread

struct header {
    uint64_t count, in_use;
};

struct record {
    int64_t time;
    uint32_t thread, line;
};

static char *memory;
static size_t region_size, regions;
static struct header *header; // of this process's region; null: there is none
static volatile char *is_same_process;
static uintptr_t base;
static char lock;
static __thread uint32_t thread;

static void install(const char *description)
{
    int descriptor = -1;
    unsigned long size = 0, count = 0;
    if (sscanf(description, "%d %lu %lu", &descriptor, &size, &count) != 3 || size <= sizeof(struct header))
        return;
    char *mapped = mmap(NULL, size * count, PROT_READ | PROT_WRITE, MAP_SHARED, descriptor, 0);
    close(descriptor);
    char *page = mmap(NULL, 4096, PROT_READ | PROT_WRITE, MAP_PRIVATE | MAP_ANONYMOUS, -1, 0);
    if (mapped == MAP_FAILED || page == MAP_FAILED || madvise(page, 4096, MADV_WIPEONFORK) != 0)
        return;
    *page = 1;
    is_same_process = page;
    memory = mapped;
    region_size = size;
    regions = count;
    header = (struct header *)memory;
    header->in_use = (uint64_t)getpid();
}

static void take_region(void)
{
    *is_same_process = 1;
    header = NULL;
    lock = 0;
    thread = 0;
    for (size_t region = 1; region < regions && header == NULL; region++) {
        struct header *each = (struct header *)(memory + region * region_size);
        uint64_t unused = 0;
        if (__atomic_compare_exchange_n(&each->in_use, &unused, 1, 0, __ATOMIC_ACQ_REL, __ATOMIC_RELAXED))
            header = each;
    }
}

static void write_record(uintptr_t address)
{
    if (memory == NULL)
        return;
    if (!*is_same_process)
        take_region();
    if (header == NULL)
        return;
    if (thread == 0)
        thread = (uint32_t)syscall(SYS_gettid);
    for (int tries = 0; __atomic_test_and_set(&lock, __ATOMIC_ACQUIRE); tries++)
        if (tries > MAX_SPIN)
            return;
    struct timespec now;
    clock_gettime(CLOCK_REALTIME, &now);
    size_t room = (region_size - sizeof(struct header)) / sizeof(struct record);
    struct record *records = (struct record *)(header + 1);
    uint64_t count = header->count;
    records[count % room] =
        (struct record){now.tv_sec * INT64_C(1000000000) + now.tv_nsec, thread, (uint32_t)(address - base)};
    __atomic_store_n(&header->count, count + 1, __ATOMIC_RELEASE);
    __atomic_clear(&lock, __ATOMIC_RELEASE);
}

unsigned int la_version(unsigned int version)
{
    char *description = getenv(VARIABLE);
    if (description != NULL)
        install(description);
    unsetenv(VARIABLE);
    unsetenv("LD_AUDIT");
    return version < LAV_CURRENT ? version : LAV_CURRENT;
}

unsigned int la_objopen(struct link_map *map, Lmid_t namespace, uintptr_t *cookie)
{
    (void)cookie;
    if (namespace != LM_ID_BASE)
        return 0;
    if (map->l_name[0] != '\0')
        return LA_FLG_BINDTO;
    base = map->l_addr;
    return LA_FLG_BINDFROM;
}

#if defined(__x86_64__)
ElfW(Addr)
    la_x86_64_gnu_pltenter(ElfW(Sym) * symbol, unsigned int index, uintptr_t *caller, uintptr_t *callee,
                           La_x86_64_regs *registers, unsigned int *flags, const char *name, long *frame_size)
{
    (void)index, (void)caller, (void)callee, (void)flags, (void)name, (void)frame_size;
    write_record(*(uintptr_t *)registers->lr_rsp);
    return symbol->st_value;
}
#elif defined(__aarch64__)
ElfW(Addr)
    la_aarch64_gnu_pltenter(ElfW(Sym) * symbol, unsigned int index, uintptr_t *caller, uintptr_t *callee,
                            La_aarch64_regs *registers, unsigned int *flags, const char *name, long *frame_size)
{
    (void)index, (void)caller, (void)callee, (void)flags, (void)name, (void)frame_size;
    write_record(registers->lr_lr);
    return symbol->st_value;
}
#endif
