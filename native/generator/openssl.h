/* The functions of OpenSSL that tls.c calls: those of the library that Python's own ssl module has loaded.
 *
 * 1. They are looked up at run time, so that building needs neither headers nor libraries of OpenSSL, and the
 *    package has no second copy of it that would need security updates of its own.
 * 2. A library that is not loaded yet is left alone: if Python has OpenSSL inside its executable, symbols of the
 *    two copies could be mixed. TLS then needs the generator in Python.
 * 3. The prototypes are those of OpenSSL 1.1.1 and 3, whose manual pages (man 3) describe them; types that are
 *    only passed on are void.
 */
#ifndef BOTHENDS_GENERATOR_OPENSSL_H
#define BOTHENDS_GENERATOR_OPENSSL_H

#include <stddef.h>
#include <stdint.h>

/* Constants of openssl/ssl.h, bio.h and x509_vfy.h. */
enum {
    SSL_ERROR_WANT_READ = 2,
    SSL_ERROR_ZERO_RETURN = 6,
    SSL_CTRL_MODE = 33,
    SSL_CTRL_SET_TLSEXT_HOSTNAME = 55,
    SSL_CTRL_SET_MIN_PROTO_VERSION = 123,
    SSL_MODE_RELEASE_BUFFERS = 0x10,
    SSL_FILETYPE_PEM = 1,
    SSL_VERIFY_NONE = 0,
    SSL_VERIFY_PEER = 1,
    BIO_CTRL_INFO = 3,
};

/* Result, name, arguments. */
#define OPENSSL_FUNCTIONS(F)                                                                                      \
    F(const void *, TLS_client_method, (void))                                                                    \
    F(void *, SSL_CTX_new, (const void *))                                                                        \
    F(void, SSL_CTX_free, (void *))                                                                               \
    F(long, SSL_CTX_ctrl, (void *, int, long, void *))                                                            \
    F(uint64_t, SSL_CTX_set_options, (void *, uint64_t))                                                          \
    F(void, SSL_CTX_set_security_level, (void *, int))                                                            \
    F(int, SSL_CTX_set_cipher_list, (void *, const char *))                                                       \
    F(void, SSL_CTX_set_verify, (void *, int, void *))                                                            \
    F(int, SSL_CTX_load_verify_locations, (void *, const char *, const char *))                                   \
    F(int, SSL_CTX_use_certificate_chain_file, (void *, const char *))                                            \
    F(int, SSL_CTX_use_PrivateKey_file, (void *, const char *, int))                                              \
    F(int, SSL_CTX_set_alpn_protos, (void *, const unsigned char *, unsigned))                                    \
    F(void *, SSL_CTX_get0_param, (void *))                                                                       \
    F(int, X509_VERIFY_PARAM_set_flags, (void *, unsigned long))                                                  \
    F(void, X509_VERIFY_PARAM_set_hostflags, (void *, unsigned))                                                  \
    F(int, X509_VERIFY_PARAM_set1_host, (void *, const char *, size_t))                                           \
    F(int, X509_VERIFY_PARAM_set1_ip_asc, (void *, const char *))                                                 \
    F(void *, SSL_new, (void *))                                                                                  \
    F(void, SSL_free, (void *))                                                                                   \
    F(long, SSL_ctrl, (void *, int, long, void *))                                                                \
    F(void, SSL_set_bio, (void *, void *, void *))                                                                \
    F(void, SSL_set_connect_state, (void *))                                                                      \
    F(int, SSL_do_handshake, (void *))                                                                            \
    F(int, SSL_read, (void *, void *, int))                                                                       \
    F(int, SSL_write, (void *, const void *, int))                                                                \
    F(int, SSL_shutdown, (void *))                                                                                \
    F(int, SSL_get_error, (const void *, int))                                                                    \
    F(const void *, BIO_s_mem, (void))                                                                            \
    F(void *, BIO_new, (const void *))                                                                            \
    F(int, BIO_free, (void *))                                                                                    \
    F(int, BIO_read, (void *, void *, int))                                                                       \
    F(int, BIO_write, (void *, const void *, int))                                                                \
    F(long, BIO_ctrl, (void *, int, long, void *))                                                                \
    F(const void *, EVP_sha256, (void))                                                                           \
    F(int, X509_digest, (const void *, const void *, unsigned char *, unsigned *))                                \
    F(void, X509_free, (void *))                                                                                  \
    F(unsigned long, ERR_peek_last_error, (void))                                                                 \
    F(const char *, ERR_reason_error_string, (unsigned long))                                                     \
    F(void, ERR_clear_error, (void))

#define OPENSSL_MEMBER(result, name, arguments) result(*name) arguments;

typedef struct {
    OPENSSL_FUNCTIONS(OPENSSL_MEMBER)
    void *(*SSL_get1_peer_certificate)(const void *); /* before OpenSSL 3: SSL_get_peer_certificate */
} OpenSsl;

extern OpenSsl openssl;

/* Find the functions in a library that this process has loaded, "libssl.so.3". Returns NULL, or why that failed. */
const char *openssl_load(const char *library);

#endif
