/* TLS of a client (RFC 8446, RFC 5246): OpenSSL between two buffers in memory, so that sockets are read and
 * written in one way with TLS and without.
 *
 *   received ciphertext -> tls_feed()   -> tls_handshake(), tls_read() -> plaintext
 *   plaintext           -> tls_write()  -> tls_unsent(), tls_sent()    -> ciphertext to send
 *
 * 1. A context has the settings of an ssl.SSLContext of Python, passed one by one (generators/native_tls.py), so
 *    certificates are verified as by the generator in Python. Sessions are not resumed, as there.
 * 2. OpenSSL keeps the errors of a thread in a queue, which each call that may fail clears first. The reason of
 *    the last one stays until the thread's next call.
 */
#include "tls.h"

#include <string.h>
#include <strings.h>

#include "openssl.h"

#define CAPSULE "bothends.bench._generator.TlsContext"

enum { SHA256_SIZE = 32 };

struct TlsContext {
    void *ssl_context;
    char *server_name; /* for SNI, or NULL: addresses are not sent (RFC 6066, section 3) */
    bool has_fingerprint;
    unsigned char fingerprint[SHA256_SIZE];
};

struct Tls {
    void *ssl, *incoming, *outgoing;
    const TlsContext *context;
    bool wrong_fingerprint, closed;
};

/* Contexts -------------------------------------------------------------------------------------------- */

static void context_free(TlsContext *context)
{
    if (context == NULL)
        return;
    if (context->ssl_context != NULL)
        openssl.SSL_CTX_free(context->ssl_context);
    PyMem_RawFree(context->server_name);
    PyMem_RawFree(context);
}

static void free_capsule(PyObject *capsule)
{
    context_free(PyCapsule_GetPointer(capsule, CAPSULE));
}

/* Return the context of a capsule, NULL for None; NULL with an exception set if it is another object. */
TlsContext *tls_context_of(PyObject *capsule)
{
    return capsule == Py_None ? NULL : PyCapsule_GetPointer(capsule, CAPSULE);
}

/* The arguments of tls_context(). Strings may be NULL. */
typedef struct {
    const char *library, *name, *address, *ciphers, *ca_file, *ca_path, *certificate, *key, *alpn, *fingerprint;
    Py_ssize_t alpn_size, fingerprint_size;
    unsigned long long options;
    unsigned long verify_flags, host_flags;
    int min_version, security_level, verify, check_name;
} Settings;

/* Set what certificates must be. Returns whether that worked. */
static bool set_verification(void *context, const Settings *given)
{
    void *parameters = openssl.SSL_CTX_get0_param(context);

    openssl.SSL_CTX_set_verify(context, given->verify ? SSL_VERIFY_PEER : SSL_VERIFY_NONE, NULL);
    if (!given->verify)
        return true;
    if ((given->ca_file != NULL || given->ca_path != NULL)
        && !openssl.SSL_CTX_load_verify_locations(context, given->ca_file, given->ca_path))
        return false;
    if (!openssl.X509_VERIFY_PARAM_set_flags(parameters, given->verify_flags))
        return false;
    openssl.X509_VERIFY_PARAM_set_hostflags(parameters, (unsigned)given->host_flags);
    if (!given->check_name)
        return true;
    return given->address != NULL ? openssl.X509_VERIFY_PARAM_set1_ip_asc(parameters, given->address)
                                  : openssl.X509_VERIFY_PARAM_set1_host(parameters, given->name, 0);
}

static bool configure(void *context, const Settings *given)
{
    const char *key = given->key != NULL ? given->key : given->certificate;

    openssl.SSL_CTX_set_options(context, given->options);
    openssl.SSL_CTX_ctrl(context, SSL_CTRL_MODE, SSL_MODE_RELEASE_BUFFERS, NULL);
    openssl.SSL_CTX_set_security_level(context, given->security_level);
    return openssl.SSL_CTX_ctrl(context, SSL_CTRL_SET_MIN_PROTO_VERSION, given->min_version, NULL)
           && openssl.SSL_CTX_set_cipher_list(context, given->ciphers) && set_verification(context, given)
           && (given->certificate == NULL
               || (openssl.SSL_CTX_use_certificate_chain_file(context, given->certificate)
                   && openssl.SSL_CTX_use_PrivateKey_file(context, key, SSL_FILETYPE_PEM)))
           && (given->alpn_size == 0
               || !openssl.SSL_CTX_set_alpn_protos(context, (const unsigned char *)given->alpn,
                                                   (unsigned)given->alpn_size)); /* 0 is success */
}

/* Allocate a context. Returns NULL with an exception set if that fails. */
static TlsContext *context_new(const Settings *given)
{
    TlsContext *context = PyMem_RawCalloc(1, sizeof *context);
    char reason[TLS_REASON_SIZE];

    if (context == NULL)
        return (TlsContext *)PyErr_NoMemory();
    if (given->name != NULL) {
        size_t size = strlen(given->name) + 1;

        context->server_name = PyMem_RawMalloc(size);
        if (context->server_name == NULL) {
            context_free(context);
            return (TlsContext *)PyErr_NoMemory();
        }
        memcpy(context->server_name, given->name, size);
    }
    context->has_fingerprint = given->fingerprint_size > 0;
    if (context->has_fingerprint)
        memcpy(context->fingerprint, given->fingerprint, SHA256_SIZE);
    openssl.ERR_clear_error();
    context->ssl_context = openssl.SSL_CTX_new(openssl.TLS_client_method());
    if (context->ssl_context == NULL || !configure(context->ssl_context, given)) {
        tls_reason(NULL, reason);
        PyErr_Format(PyExc_OSError, "OpenSSL: %s", reason);
        context_free(context);
        return NULL;
    }
    return context;
}

const char tls_context_doc[] =
    "tls_context(*, library, name, address, verify, check_name, ca_file, ca_path, certificate, key, alpn,\n"
    "    fingerprint, options, verify_flags, host_flags, min_version, ciphers, security_level) -> object\n\n"
    "Return settings for the argument `tls` of the other functions. `library`: the OpenSSL that the ssl module has\n"
    "loaded. Raises ImportError if it has loaded none, OSError if OpenSSL refuses a setting. See\n"
    "bothends.bench.generators.native_tls.";

PyObject *tls_context(PyObject *module, PyObject *arguments, PyObject *names)
{
    static char *keywords[] = {
        "library",      "name",        "address",     "verify",  "check_name",     "ca_file",
        "ca_path",      "certificate", "key",         "alpn",    "fingerprint",    "options",
        "verify_flags", "host_flags",  "min_version", "ciphers", "security_level", NULL};
    Settings given;
    TlsContext *context;
    const char *problem;
    PyObject *capsule;

    if (!PyArg_ParseTupleAndKeywords(
            arguments, names, "$szzppzzzzy#y#Kkkisi", keywords, &given.library, &given.name, &given.address,
            &given.verify, &given.check_name, &given.ca_file, &given.ca_path, &given.certificate, &given.key,
            &given.alpn, &given.alpn_size, &given.fingerprint, &given.fingerprint_size, &given.options,
            &given.verify_flags, &given.host_flags, &given.min_version, &given.ciphers, &given.security_level))
        return NULL;
    if ((given.name == NULL) == (given.address == NULL)
        || (given.fingerprint_size != 0 && given.fingerprint_size != SHA256_SIZE)) {
        PyErr_SetString(PyExc_ValueError, "give a name or an address, and 32 bytes of a fingerprint or none");
        return NULL;
    }
    problem = openssl_load(given.library);
    if (problem != NULL)
        return PyErr_Format(PyExc_ImportError, "%s: %s", given.library, problem);
    context = context_new(&given);
    if (context == NULL)
        return NULL;
    capsule = PyCapsule_New(context, CAPSULE, free_capsule);
    if (capsule == NULL)
        context_free(context);
    return capsule;
}

/* Sessions -------------------------------------------------------------------------------------------- */

/* Return a new session; NULL if memory is short. */
Tls *tls_new(const TlsContext *context)
{
    Tls *tls = PyMem_RawCalloc(1, sizeof *tls);

    if (tls == NULL)
        return NULL;
    tls->context = context;
    tls->incoming = openssl.BIO_new(openssl.BIO_s_mem());
    tls->outgoing = openssl.BIO_new(openssl.BIO_s_mem());
    tls->ssl = openssl.SSL_new(context->ssl_context);
    if (tls->incoming == NULL || tls->outgoing == NULL || tls->ssl == NULL
        || (context->server_name != NULL
            && !openssl.SSL_ctrl(tls->ssl, SSL_CTRL_SET_TLSEXT_HOSTNAME, 0, context->server_name))) {
        openssl.BIO_free(tls->incoming);
        openssl.BIO_free(tls->outgoing);
        openssl.SSL_free(tls->ssl);
        PyMem_RawFree(tls);
        return NULL;
    }
    openssl.SSL_set_bio(tls->ssl, tls->incoming, tls->outgoing); /* and owns them */
    openssl.SSL_set_connect_state(tls->ssl);
    return tls;
}

void tls_free(Tls *tls)
{
    if (tls == NULL)
        return;
    openssl.SSL_free(tls->ssl);
    PyMem_RawFree(tls);
}

/* Add received ciphertext. Returns false if memory is short. */
bool tls_feed(Tls *tls, const char *data, int64_t size)
{
    return openssl.BIO_write(tls->incoming, data, (int)size) == (int)size;
}

static bool has_fingerprint(Tls *tls)
{
    unsigned char digest[SHA256_SIZE];
    unsigned size = 0;
    void *certificate;

    if (!tls->context->has_fingerprint)
        return true;
    certificate = openssl.SSL_get1_peer_certificate(tls->ssl);
    if (certificate == NULL)
        return false;
    openssl.X509_digest(certificate, openssl.EVP_sha256(), digest, &size);
    openssl.X509_free(certificate);
    return size == SHA256_SIZE && memcmp(digest, tls->context->fingerprint, SHA256_SIZE) == 0;
}

/* Go on with the handshake. Returns TLS_ENDED when it is complete, TLS_WAIT, or TLS_FAILED; each time there may be
 * ciphertext to send, after a failure an alert. */
int tls_handshake(Tls *tls)
{
    int result;

    openssl.ERR_clear_error();
    result = openssl.SSL_do_handshake(tls->ssl);
    if (result == 1) {
        tls->wrong_fingerprint = !has_fingerprint(tls);
        return tls->wrong_fingerprint ? TLS_FAILED : TLS_ENDED;
    }
    return openssl.SSL_get_error(tls->ssl, result) == SSL_ERROR_WANT_READ ? TLS_WAIT : TLS_FAILED;
}

/* Decrypt up to a record. Returns its size, TLS_ENDED after the peer's close_notify, TLS_WAIT, or TLS_FAILED. */
int64_t tls_read(Tls *tls, char *data, int size)
{
    int result;

    openssl.ERR_clear_error();
    result = openssl.SSL_read(tls->ssl, data, size);
    if (result > 0)
        return result;
    switch (openssl.SSL_get_error(tls->ssl, result)) {
    case SSL_ERROR_WANT_READ:
        return TLS_WAIT;
    case SSL_ERROR_ZERO_RETURN:
        return TLS_ENDED;
    default:
        return TLS_FAILED;
    }
}

/* Encrypt. Returns false if that fails. */
bool tls_write(Tls *tls, const char *data, int64_t size)
{
    openssl.ERR_clear_error();
    return openssl.SSL_write(tls->ssl, data, (int)size) == (int)size;
}

/* Add a close_notify to what is to be sent (RFC 8446, section 6.1). */
void tls_close_notify(Tls *tls)
{
    if (!tls->closed) {
        tls->closed = true;
        openssl.ERR_clear_error();
        openssl.SSL_shutdown(tls->ssl);
    }
}

/* Return the size of the ciphertext to send, and in `data`, unless that is NULL, where it is. */
size_t tls_unsent(const Tls *tls, const char **data)
{
    char *start = NULL;
    long size = openssl.BIO_ctrl(tls->outgoing, BIO_CTRL_INFO, 0, &start);

    if (data != NULL)
        *data = start;
    return size > 0 ? (size_t)size : 0;
}

/* Drop ciphertext that is sent. */
void tls_sent(Tls *tls, size_t size)
{
    char dropped[4096];

    while (size > 0) {
        int count = openssl.BIO_read(tls->outgoing, dropped, (int)(size < sizeof dropped ? size : sizeof dropped));

        if (count <= 0)
            return;
        size -= (size_t)count;
    }
}

/* Write why the last call for a session has failed, or for a context if `tls` is NULL: the name that Python's
 * ssl.SSLError.reason has, "CERTIFICATE_VERIFY_FAILED". */
void tls_reason(const Tls *tls, char reason[TLS_REASON_SIZE])
{
    const char *text = openssl.ERR_reason_error_string(openssl.ERR_peek_last_error());
    size_t i = 0;

    if (tls != NULL && tls->wrong_fingerprint) {
        PyOS_snprintf(reason, TLS_REASON_SIZE, "the certificate's fingerprint differs");
        return;
    }
    for (text = text != NULL ? text : "error in TLS"; text[i] != '\0' && i < TLS_REASON_SIZE - 1; i++)
        reason[i] = text[i] == ' '                     ? '_'
                    : text[i] >= 'a' && text[i] <= 'z' ? (char)(text[i] - 'a' + 'A')
                                                       : text[i];
    reason[i] = '\0';
}
