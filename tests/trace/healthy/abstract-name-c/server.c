#include <pthread.h>
#include <stddef.h>
#include <stdint.h>
#include <stdio.h>
#include <string.h>
#include <sys/socket.h>
#include <sys/un.h>
#include <unistd.h>

static void *serve(void *arg)
{
    int fd = (int)(intptr_t)arg;
    FILE *in = fdopen(fd, "r");
    char line[256];
    int count = 0;

    while (fgets(line, sizeof line, in)) {
        if (strcmp(line, ".\n") == 0) {
            dprintf(fd, "%d lines\n", count);
            count = 0;
        } else
            count++;
    }
    fclose(in);
    return NULL;
}

int main(int argc, char **argv)
{
    struct sockaddr_un addr = {.sun_family = AF_UNIX};
    const char *name = argv[2];
    socklen_t len = offsetof(struct sockaddr_un, sun_path) + 1 + strlen(name);
    int s = socket(AF_UNIX, SOCK_STREAM | SOCK_CLOEXEC, 0);
    pthread_t threads[3];

    (void)argc;
    memcpy(addr.sun_path + 1, name, strlen(name));
    if (bind(s, (struct sockaddr *)&addr, len) < 0 || listen(s, 8) < 0) {
        perror("server");
        return 1;
    }
    for (int i = 0; i < 3; i++) {
        int c = accept(s, NULL, NULL);
        if (c < 0)
            return 1;
        pthread_create(&threads[i], NULL, serve, (void *)(intptr_t)c);
    }
    for (int i = 0; i < 3; i++)
        pthread_join(threads[i], NULL);
    return 0;
}
