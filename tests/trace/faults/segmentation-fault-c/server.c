#include <netinet/in.h>
#include <stdlib.h>
#include <string.h>
#include <sys/socket.h>
#include <unistd.h>

int main(int argc, char **argv) {
    struct sockaddr_in a = {AF_INET, htons(atoi(argv[1])), {htonl(INADDR_LOOPBACK)}};
    int s = socket(AF_INET, SOCK_STREAM, 0);
    bind(s, (struct sockaddr *)&a, sizeof a);
    listen(s, 5);
    int c = accept(s, NULL, NULL);
    char buf[100] = "", *value;
    read(c, buf, sizeof buf - 1);
    value = strchr(buf, '=');
    write(c, value + 1, strlen(value + 1));
    close(c);
}
