/* Notes each address and port that a program wants a TCP connection to, whatever comes of it.
 *
 * Preloaded. A dial without a route leaves nothing on the wire, so it is counted where the kernel is
 * asked for it. */
#include <arpa/inet.h>
#include <fcntl.h>
#include <netinet/in.h>
#include <stdio.h>
#include <stdlib.h>
#include <sys/socket.h>
#include <sys/syscall.h>
#include <unistd.h>

static void note(int socket, const struct sockaddr *to) {
    const char *path = getenv("LAB_DIALS");
    char address[INET6_ADDRSTRLEN], line[INET6_ADDRSTRLEN + 8];
    int kind = 0;
    socklen_t size = sizeof kind;
    if (!path || getsockopt(socket, SOL_SOCKET, SO_TYPE, &kind, &size) || kind != SOCK_STREAM) return;
    const void *bytes = to->sa_family == AF_INET ? (void *)&((struct sockaddr_in *)to)->sin_addr
                                                 : (void *)&((struct sockaddr_in6 *)to)->sin6_addr;
    in_port_t port = to->sa_family == AF_INET ? ((struct sockaddr_in *)to)->sin_port
                                              : ((struct sockaddr_in6 *)to)->sin6_port;
    if (!inet_ntop(to->sa_family, bytes, address, sizeof address)) return;
    int file = open(path, O_WRONLY | O_APPEND | O_CREAT | O_CLOEXEC, 0600);
    if (file < 0) return;
    int length = snprintf(line, sizeof line, "%s %d\n", address, ntohs(port));
    if (write(file, line, length) != length) abort();
    close(file);
}

int connect(int socket, const struct sockaddr *to, socklen_t length) {
    if (to && (to->sa_family == AF_INET || to->sa_family == AF_INET6)) note(socket, to);
    return (int)syscall(SYS_connect, socket, to, length);
}
