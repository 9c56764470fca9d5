#include "proto.h"

int main(void)
{
    const char *entries[] = {"boot", "disk ok", "", "net ok", "shutdown"};
    int fd = socket(AF_INET, SOCK_STREAM, 0);
    struct sockaddr_in a = where();
    if (connect(fd, (struct sockaddr *)&a, sizeof a)) { perror("connect"); return 1; }
    for (int i = 0; i < 5; i++) {
        char frame[256], ack;
        uint16_t len = htons(strlen(entries[i]));
        memcpy(frame, &len, 2);
        memcpy(frame + 2, entries[i], strlen(entries[i]));
        size_t n = 2 + strlen(entries[i]);
        if (send(fd, frame, n, MSG_NOSIGNAL) != (ssize_t)n) { perror("send"); return 1; }
        int rc = read_full(fd, &ack, 1);
        if (rc <= 0) {
            fprintf(stderr, "entry %d not acknowledged: %s\n", i, rc ? "error" : "server closed");
            return 1;
        }
        printf("entry %d acknowledged\n", i);
    }
    close(fd);
    return 0;
}
