/* A text that grows, and the parts of a line that are the same everywhere: text.h. */
#include "text.h"

#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

void text_free(struct text *text)
{
    free(text->data);
    memset(text, 0, sizeof *text);
}

static char *reserve(struct text *text, size_t more)
{
    if (text->length + more > text->capacity) {
        size_t capacity = (text->length + more) * 2;
        char *data = realloc(text->data, capacity);
        if (!data) {
            text->failed = 1;
            text->length = 0;
            if (more > text->capacity)
                return NULL;
            return text->data;
        }
        text->data = data;
        text->capacity = capacity;
    }
    return text->data + text->length;
}

void text_add(struct text *text, const char *format, ...)
{
    va_list arguments;
    char *at = reserve(text, 512);
    if (!at)
        return;
    va_start(arguments, format);
    int length = vsnprintf(at, 512, format, arguments);
    va_end(arguments);
    text->length += length < 512 ? length : 511;
}

void add(struct text *text, const char *string)
{
    size_t length = strlen(string);
    char *at = reserve(text, length);
    if (at) {
        memcpy(at, string, length);
        text->length += length;
    }
}

void add_number(struct text *text, s64 value)
{
    char digits[24], *at = digits + sizeof digits;
    u64 rest = value < 0 ? -(u64)value : (u64)value;
    *--at = 0;
    do
        *--at = '0' + rest % 10;
    while (rest /= 10);
    if (value < 0)
        *--at = '-';
    add(text, at);
}

void add_hex(struct text *text, const void *data, size_t length)
{
    static const char digits[] = "0123456789abcdef";
    const u8 *bytes = data;
    char *at = reserve(text, 4 * length);
    if (!at)
        return;
    for (size_t i = 0; i < length; i++) {
        *at++ = '\\';
        *at++ = 'x';
        *at++ = digits[bytes[i] >> 4];
        *at++ = digits[bytes[i] & 15];
    }
    text->length += 4 * length;
}

void add_string(struct text *text, const void *data, size_t length, int is_cut)
{
    add(text, "\"");
    add_hex(text, data, length);
    add(text, is_cut ? "\"..." : "\"");
}

void add_pointer(struct text *text, u64 address)
{
    if (address)
        text_add(text, "%#llx", (unsigned long long)address);
    else
        add(text, "NULL");
}

void add_flags(struct text *text, const struct name *table, u64 value, const char *rest)
{
    int is_first = 1;
    for (; *table->name; table++)
        if (table->value && (value & table->value) == table->value) {
            add(text, is_first ? "" : "|");
            add(text, table->name);
            value &= ~table->value;
            is_first = 0;
        }
    if (value)
        text_add(text, "%s%#llx", is_first ? "" : "|", (unsigned long long)value);
    else if (is_first)
        add(text, rest);
}

void add_name(struct text *text, const struct name *table, u64 value)
{
    const char *name = name_of(table, value);
    if (name)
        add(text, name);
    else
        text_add(text, "%#llx", (unsigned long long)value);
}
