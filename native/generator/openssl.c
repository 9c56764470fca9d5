/* Find the functions of OpenSSL. */
#include "openssl.h"

#include <dlfcn.h>
#include <string.h>

OpenSsl openssl;

#define OPENSSL_NAME(result, name, arguments) {#name, NULL, offsetof(OpenSsl, name)},

static const struct {
    const char *name, *older_name;
    size_t offset;
} functions[] = {
    OPENSSL_FUNCTIONS(OPENSSL_NAME) /* each ends with a comma */
    {"SSL_get1_peer_certificate", "SSL_get_peer_certificate", offsetof(OpenSsl, SSL_get1_peer_certificate)},
};

const char *openssl_load(const char *library)
{
    static void *handle; /* kept open, like any imported module */
    void *found;

    if (handle != NULL)
        return NULL;
    found = dlopen(library, RTLD_NOW | RTLD_NOLOAD);
    if (found == NULL)
        return "Python's ssl module does not use it as a shared library";
    for (size_t i = 0; i < sizeof functions / sizeof *functions; i++) {
        void *function = dlsym(found, functions[i].name);

        if (function == NULL && functions[i].older_name != NULL)
            function = dlsym(found, functions[i].older_name);
        if (function == NULL) {
            dlclose(found);
            return "it lacks functions of OpenSSL 1.1.1";
        }
        /* memcpy: ISO C has no cast from an object pointer to a function pointer. */
        memcpy((char *)&openssl + functions[i].offset, &function, sizeof function);
    }
    handle = found;
    return NULL;
}
