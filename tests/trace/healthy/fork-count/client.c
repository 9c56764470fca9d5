#include <stdlib.h>
#include <arpa/inet.h>
#include <stdio.h>
#include <string.h>
#include <sys/socket.h>
#include <unistd.h>

static int port;

#define N 4

int main(int argc, char **argv)
{
    port = atoi(argv[1]);
    FILE *in[N], *out[N];
    char line[256], want[256];
    int bad = 0;
    for (int i = 0; i < N; i++) {
        int fd = -1;
        for (int t = 0; t < 20; t++) {
            struct sockaddr_in a = {.sin_family = AF_INET, .sin_port = htons(port)};
            a.sin_addr.s_addr = htonl(INADDR_LOOPBACK);
            fd = socket(AF_INET, SOCK_STREAM, 0);
            if (connect(fd, (struct sockaddr *)&a, sizeof a) == 0) break;
            close(fd);
            fd = -1;
            usleep(100000);
        }
        if (fd < 0) { perror("connect"); return 1; }
        in[i] = fdopen(fd, "r");
        out[i] = fdopen(dup(fd), "w");
    }
    for (int round = 1; round <= 3; round++) {
        for (int i = 0; i < N; i++) {
            if (i == 2 && round == 2) {
                shutdown(fileno(out[i]), SHUT_WR);
                if (fgets(line, sizeof line, in[i])) bad++;
            }
            if (i == 2 && round >= 2) continue;
            fprintf(out[i], "client %d says %d\n", i, round * 10);
            fflush(out[i]);
            snprintf(want, sizeof want, "%d client %d says %d\n", round, i, round * 10);
            if (!fgets(line, sizeof line, in[i]) || strcmp(line, want)) bad++;
        }
        sleep(1);
    }
    for (int i = 0; i < N; i++) { fclose(out[i]); fclose(in[i]); }
    printf("%s\n", bad ? "trouble" : "all well");
    return bad != 0;
}
