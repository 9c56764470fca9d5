#include <arpa/inet.h>
#include <stdio.h>
#include <stdlib.h>
#include <sys/socket.h>
#include <sys/wait.h>
#include <unistd.h>
static int server(int port) {
    int ls = socket(AF_INET, SOCK_STREAM, 0), one = 1;
    setsockopt(ls, SOL_SOCKET, SO_REUSEADDR, &one, sizeof one);
    struct sockaddr_in a = {.sin_family = AF_INET, .sin_port = htons(port)};
    a.sin_addr.s_addr = htonl(INADDR_LOOPBACK);
    if (bind(ls, (void *)&a, sizeof a) || listen(ls, 5)) { perror("bind"); return -1; }
    return ls;
}
int main(int c, char **v) {
    int port = c > 1 ? atoi(v[1]) : 0;
    int ls = server(port);
    if (ls < 0) return 1;
    struct sockaddr_in a;
    socklen_t l = sizeof a;
    getsockname(ls, (void *)&a, &l);
    port = ntohs(a.sin_port);
    printf("%d\n", port); fflush(stdout);
    int s = accept(ls, NULL, NULL);
    pid_t job = fork();
    if (job == 0) { close(s); execlp("sleep", "sleep", "20", (char *)NULL); _exit(127); }
    send(s, "restarting\n", 11, 0);
    close(s);
    close(ls); /* reload the configuration */
    ls = server(port);
    if (ls < 0) { fprintf(stderr, "restart failed\n"); waitpid(job, NULL, 0); return 1; }
    s = accept(ls, NULL, NULL);
    send(s, "new server\n", 11, 0);
    close(s);
    return 0;
}
