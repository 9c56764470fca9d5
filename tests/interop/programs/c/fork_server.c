/* A process for each client: says who called, and talks with him until it reads 0 bytes. Prints its port. */
#include <arpa/inet.h>
#include <ctype.h>
#include <signal.h>
#include <stdio.h>
#include <sys/socket.h>
#include <unistd.h>

static void talk(int client, const char *name)
{
    char buffer[1024];
    int n;

    while ((n = read(client, buffer, sizeof buffer)) > 0) {
        printf("%s says: %.*s\n", name, n, buffer);
        for (int i = 0; i < n; i++)
            buffer[i] = toupper((unsigned char)buffer[i]);
        if (write(client, buffer, n) < 0)
            perror("write");
    }
    printf("%s has gone\n", name);
}

int main(void)
{
    struct sockaddr_in me = {.sin_family = AF_INET}, caller;
    socklen_t size = sizeof me;
    char name[64];

    setlinebuf(stdout);
    signal(SIGCHLD, SIG_IGN); /* nobody waits for the children */
    int welcome = socket(AF_INET, SOCK_STREAM, 0);
    bind(welcome, (struct sockaddr *)&me, sizeof me);
    listen(welcome, 5);
    getsockname(welcome, (struct sockaddr *)&me, &size);
    printf("port %d\n", ntohs(me.sin_port));

    for (;;) {
        size = sizeof caller;
        int client = accept(welcome, (struct sockaddr *)&caller, &size);
        snprintf(name, sizeof name, "%s#%d", inet_ntoa(caller.sin_addr), ntohs(caller.sin_port));
        printf("%s called\n", name);
        if (fork() == 0) {
            close(welcome);
            talk(client, name);
            close(client);
            return 0;
        }
        close(client);
    }
}
