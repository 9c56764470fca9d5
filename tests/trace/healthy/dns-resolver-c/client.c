#include <arpa/inet.h>
#include <netdb.h>
#include <resolv.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

int main(int argc, char **argv) {
    res_init();
    _res.nscount = 1;
    _res.nsaddr_list[0].sin_family = AF_INET;
    _res.nsaddr_list[0].sin_port = htons(atoi(argv[1]));
    inet_pton(AF_INET, "127.0.0.1", &_res.nsaddr_list[0].sin_addr);
    _res.retrans = 1;
    struct addrinfo hints = {.ai_socktype = SOCK_STREAM}, *found;
    for (int i = 0; i < 2; i++) {
        int error = getaddrinfo(i ? "www.example.test" : "host.example.test", "80", &hints, &found);
        printf("%s\n", error ? gai_strerror(error) : "found");
    }
}
