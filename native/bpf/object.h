/* The compiled BPF programs, which setup.py embeds. */
#ifndef BOTHENDS_BPF_OBJECT_H
#define BOTHENDS_BPF_OBJECT_H

#include <stddef.h>

extern const unsigned char bpf_object_bytes[];
extern const size_t bpf_object_size;
extern const unsigned char bpf_tls_object_bytes[];
extern const size_t bpf_tls_object_size;

#endif
