#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>
#include <arpa/inet.h>
#include <sys/socket.h>
int main(int argc, char **argv) {
    int s = socket(AF_INET, SOCK_STREAM, 0);
    struct sockaddr_in a = {.sin_family = AF_INET, .sin_port = htons(atoi(argv[1]))};
    a.sin_addr.s_addr = htonl(INADDR_LOOPBACK);
    if (connect(s, (struct sockaddr *)&a, sizeof a)) { perror("connect"); return 1; }
    char line[80];
    usleep(200000); /* opens the sensor */
    for (int i = 0; i < 100; i++) {
        int n = snprintf(line, sizeof line, "event %03d: door opened\n", i);
        if (send(s, line, n, MSG_NOSIGNAL) != n) { perror("send"); return 1; }
    }
    close(s);
    return 0;
}
