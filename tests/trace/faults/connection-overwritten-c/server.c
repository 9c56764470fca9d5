#include <arpa/inet.h>
#include <pthread.h>
#include <stdio.h>
#include <stdlib.h>
#include <sys/socket.h>
#include <unistd.h>

static void *serve(void *argument)
{
    char buf[256];
    ssize_t n;
    usleep(200000); /* look up the address */
    int c = *(int *)argument;
    while ((n = recv(c, buf, sizeof buf, 0)) > 0)
        send(c, buf, n, MSG_NOSIGNAL);
    close(c);
    return NULL;
}

int main(int argc, char **argv)
{
    int ls = socket(AF_INET, SOCK_STREAM, 0), one = 1;
    struct sockaddr_in a = { .sin_family = AF_INET, .sin_port = htons(atoi(argv[1])) };
    a.sin_addr.s_addr = htonl(INADDR_LOOPBACK);
    setsockopt(ls, SOL_SOCKET, SO_REUSEADDR, &one, sizeof one);
    if (bind(ls, (struct sockaddr *)&a, sizeof a) < 0 || listen(ls, 5) < 0) { perror("bind"); return 1; }
    for (;;) {
        pthread_t t;
        int c = accept(ls, NULL, NULL);
        if (c < 0) continue;
        pthread_create(&t, NULL, serve, &c);
        pthread_detach(t);
    }
}
