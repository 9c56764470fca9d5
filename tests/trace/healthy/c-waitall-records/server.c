#include <arpa/inet.h>
#include <stdint.h>
#include <stdlib.h>
#include <sys/socket.h>
#include <unistd.h>

int main(int argc, char **argv) {
    int listener = socket(AF_INET, SOCK_STREAM, 0), on = 1;
    setsockopt(listener, SOL_SOCKET, SO_REUSEADDR, &on, sizeof on);
    struct sockaddr_in at = {.sin_family = AF_INET, .sin_port = htons(atoi(argv[1])), .sin_addr = {htonl(INADDR_LOOPBACK)}};
    bind(listener, (struct sockaddr *)&at, sizeof at);
    listen(listener, 4);
    int conn = accept(listener, NULL, NULL);
    uint32_t record[16], sum = 0;
    while (recv(conn, record, sizeof record, MSG_WAITALL) == sizeof record) {
        for (int i = 0; i < 16; i++) sum += ntohl(record[i]);
        uint32_t answer = htonl(sum);
        send(conn, &answer, sizeof answer, 0);
    }
    close(conn);
    close(listener);
    return 0;
}
