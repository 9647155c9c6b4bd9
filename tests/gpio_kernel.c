/* The kernel's GPIO character device (linux/gpio.h, version 2) in user space, for the real gpiod package to talk to:
 * preloaded, it answers for every path that contains "gpiochip" and writes pin changes to the file JM_GPIO_LOG.
 * Ten lines, of which 3 is named LED and line 4 is used by the kernel. */
#define _GNU_SOURCE
#include <dlfcn.h>
#include <errno.h>
#include <fcntl.h>
#include <linux/gpio.h>
#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/ioctl.h>
#include <unistd.h>

#define LINES 10
#define USED 4

static int chip_fd[64], request_fd[64], request_line[64], active_low[64], chips, requests;

static void say(const char *format, int a, int b)
{
    FILE *log = fopen(getenv("JM_GPIO_LOG"), "a");
    fprintf(log, format, a, b);
    fclose(log);
}

static int index_of(const int *table, int count, int fd)
{
    while (count-- > 0) {
        if (table[count] == fd) {
            return count;
        }
    }
    return -1;
}

static int open_chip(const char *path, int flags)
{
    static int (*real)(const char *, int, ...);
    int fd;
    if (!real) {
        *(void **)&real = dlsym(RTLD_NEXT, "open");
    }
    if (strstr(path, "gpiochip") && getenv("JM_GPIO_DENIED")) {
        errno = EACCES;
        return -1;
    }
    fd = real(path, flags);
    if (fd >= 0 && strstr(path, "gpiochip") && chips < 64) {
        chip_fd[chips++] = fd;
    }
    return fd;
}

int open(const char *path, int flags, ...)
{
    static int (*real)(const char *, int, ...);
    va_list rest;
    int mode;
    if (strstr(path, "gpiochip")) {
        return open_chip(path, flags);
    }
    if (!real) {
        *(void **)&real = dlsym(RTLD_NEXT, "open");
    }
    va_start(rest, flags);
    mode = va_arg(rest, int);
    va_end(rest);
    return real(path, flags, mode);
}

/* The subsystem of whatever character device stands for the chip. */
char *realpath(const char *path, char *resolved)
{
    static char *(*real)(const char *, char *);
    if (!real) {
        *(void **)&real = dlsym(RTLD_NEXT, "realpath");
    }
    if (strstr(path, "/subsystem")) {
        return resolved ? strcpy(resolved, "/sys/bus/gpio") : strdup("/sys/bus/gpio");
    }
    return real(path, resolved);
}

int close(int fd)
{
    static int (*real)(int);
    int at = index_of(request_fd, requests, fd);
    if (!real) {
        *(void **)&real = dlsym(RTLD_NEXT, "close");
    }
    if (at >= 0) {
        say("released %d\n", request_line[at], 0);
        request_fd[at] = -1;
    }
    at = index_of(chip_fd, chips, fd);
    if (at >= 0) {
        chip_fd[at] = -1;
    }
    return real(fd);
}

static int line_info(struct gpio_v2_line_info *info)
{
    if (info->offset >= LINES) {
        return errno = EINVAL, -1;
    }
    memset(info->name, 0, sizeof info->name);
    memset(info->consumer, 0, sizeof info->consumer);
    if (info->offset == 3) {
        strcpy(info->name, "LED");
    }
    info->flags = GPIO_V2_LINE_FLAG_INPUT | (info->offset == USED ? GPIO_V2_LINE_FLAG_USED : 0);
    info->num_attrs = 0;
    return 0;
}

static int get_line(struct gpio_v2_line_request *request)
{
    int line = (int)request->offsets[0], value = 0;
    unsigned k;
    if (line == USED) {
        return errno = EBUSY, -1;
    }
    if (request->num_lines != 1 || line >= LINES || !(request->config.flags & GPIO_V2_LINE_FLAG_OUTPUT)) {
        return errno = EINVAL, -1;
    }
    for (k = 0; k < request->config.num_attrs; ++k) {
        if (request->config.attrs[k].attr.id == GPIO_V2_LINE_ATTR_ID_OUTPUT_VALUES) {
            value = (int)(request->config.attrs[k].attr.values & 1);
        }
    }
    request->fd = dup(chip_fd[chips - 1]);
    request_fd[requests] = request->fd;
    request_line[requests] = line;
    active_low[requests] = (request->config.flags & GPIO_V2_LINE_FLAG_ACTIVE_LOW) != 0;
    say(strcmp(request->consumer, "joulemeter") ? "stranger %d\n" : "taken %d\n", line, 0);
    say("pin %d %d\n", line, value ^ active_low[requests]);
    ++requests;
    return 0;
}

int ioctl(int fd, unsigned long request, ...)
{
    static int (*real)(int, unsigned long, ...);
    va_list rest;
    void *argument;
    int at;
    /* The kernel looks at 32 bits of it, and some callers extend its sign. */
    request &= 0xffffffffu;
    va_start(rest, request);
    argument = va_arg(rest, void *);
    va_end(rest);
    if (!real) {
        *(void **)&real = dlsym(RTLD_NEXT, "ioctl");
    }
    at = index_of(request_fd, requests, fd);
    if (at >= 0 && request == GPIO_V2_LINE_SET_VALUES_IOCTL) {
        struct gpio_v2_line_values *values = argument;
        if (values->mask & 1) {
            say("pin %d %d\n", request_line[at], (int)(values->bits & 1) ^ active_low[at]);
        }
        return 0;
    }
    if (index_of(chip_fd, chips, fd) >= 0) {
        switch (request) {
        case GPIO_GET_CHIPINFO_IOCTL: {
            struct gpiochip_info *info = argument;
            memset(info, 0, sizeof *info);
            strcpy(info->name, "gpiochip0");
            info->lines = LINES;
            return 0;
        }
        case GPIO_V2_GET_LINEINFO_IOCTL:
            return line_info(argument);
        case GPIO_V2_GET_LINE_IOCTL:
            return get_line(argument);
        default:
            break;
        }
    }
    return real(fd, request, argument);
}
