/* Capitalises what one read gives, on a socket in the file system: unix_server PATH */
#include <ctype.h>
#include <stdio.h>
#include <string.h>
#include <sys/socket.h>
#include <sys/un.h>
#include <unistd.h>

int main(int argc, char *argv[])
{
    struct sockaddr_un me = {.sun_family = AF_UNIX};
    char buffer[1024];

    if (argc != 2) {
        fprintf(stderr, "usage: unix_server PATH\n");
        return 2;
    }
    setlinebuf(stdout);
    strncpy(me.sun_path, argv[1], sizeof me.sun_path - 1);
    unlink(argv[1]); /* what an earlier run has left behind */
    int welcome = socket(AF_UNIX, SOCK_STREAM, 0);
    bind(welcome, (struct sockaddr *)&me, sizeof me);
    listen(welcome, 5);
    printf("listening on %s\n", argv[1]);

    for (;;) {
        int client = accept(welcome, NULL, NULL);
        int n = read(client, buffer, sizeof buffer);
        for (int i = 0; i < n; i++)
            buffer[i] = toupper((unsigned char)buffer[i]);
        if (n > 0 && write(client, buffer, n) < 0)
            perror("write");
        close(client);
    }
}
