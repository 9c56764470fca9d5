#include <netinet/in.h>
#include <stdlib.h>
#include <string.h>
#include <sys/socket.h>
#include <unistd.h>

#define CHUNK 256

int main(int argc, char **argv)
{
    int listener = socket(AF_INET, SOCK_STREAM, 0), on = 1;
    struct sockaddr_in address = {.sin_family = AF_INET, .sin_port = htons(argc > 1 ? atoi(argv[1]) : 0)};
    setsockopt(listener, SOL_SOCKET, SO_REUSEADDR, &on, sizeof on);
    address.sin_addr.s_addr = htonl(INADDR_LOOPBACK);
    if (bind(listener, (struct sockaddr *)&address, sizeof address) || listen(listener, 5)) return 1;
    for (;;) {
        int c = accept(listener, NULL, NULL);
        char text[64 * CHUNK];
        size_t have = 0;
        ssize_t n;
        do {
            n = read(c, text + have, CHUNK);
            if (n > 0) have += n;
        } while (n == CHUNK && have < sizeof text); /* a full chunk: there is more */
        for (size_t i = 0; i < have / 2; i++) {
            char swap = text[i];
            text[i] = text[have - 1 - i];
            text[have - 1 - i] = swap;
        }
        write(c, text, have);
        close(c);
    }
}
