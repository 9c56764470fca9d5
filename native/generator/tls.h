/* TLS of a client, without a socket: ciphertext in, ciphertext out. See tls.c. */
#ifndef BOTHENDS_GENERATOR_TLS_H
#define BOTHENDS_GENERATOR_TLS_H

#define PY_SSIZE_T_CLEAN
#include <Python.h>
#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

typedef struct TlsContext TlsContext; /* the settings of all sessions: an SSL_CTX */
typedef struct Tls Tls;               /* one session: an SSL */

/* A record has at most 16 KiB of plaintext (RFC 8446, section 5.1). */
enum { TLS_RECORD = 16 * 1024 };

/* What tls_handshake() and tls_read() return if there is no plaintext. */
enum { TLS_ENDED = 0, TLS_WAIT = -1, TLS_FAILED = -2 };

enum { TLS_REASON_SIZE = 64 };

extern const char tls_context_doc[];
PyObject *tls_context(PyObject *module, PyObject *arguments, PyObject *names);
TlsContext *tls_context_of(PyObject *capsule);

Tls *tls_new(const TlsContext *context);
void tls_free(Tls *tls);
bool tls_feed(Tls *tls, const char *data, int64_t size);
int tls_handshake(Tls *tls);
int64_t tls_read(Tls *tls, char *data, int size);
bool tls_write(Tls *tls, const char *data, int64_t size);
void tls_close_notify(Tls *tls);
size_t tls_unsent(const Tls *tls, const char **data);
void tls_sent(Tls *tls, size_t size);
void tls_reason(const Tls *tls, char reason[TLS_REASON_SIZE]);

#endif
