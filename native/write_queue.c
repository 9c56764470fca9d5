/* A connection's unsent bytes: a queue of bytes objects, which are never copied. */
#include "internal.h"

#include <sys/uio.h>

/* Append a bytes object; takes a new reference. 0, or -1 with MemoryError set. */
int write_queue_append(WriteQueue *queue, PyObject *bytes)
{
    if (queue->head == NULL) {
        queue->head = Py_NewRef(bytes);
        queue->offset = 0;
    } else {
        WriteChunk *chunk = PyMem_Malloc(sizeof *chunk);

        if (chunk == NULL) {
            PyErr_NoMemory();
            return -1;
        }
        chunk->next = NULL;
        chunk->bytes = Py_NewRef(bytes);
        if (queue->tail == NULL)
            queue->tail = chunk;
        else
            queue->tail_last->next = chunk;
        queue->tail_last = chunk;
    }
    queue->unsent += (size_t)PyBytes_GET_SIZE(bytes);
    return 0;
}

/* Remove `size` sent bytes from the front. */
void write_queue_consume(WriteQueue *queue, size_t size)
{
    queue->unsent -= size;
    while (queue->head != NULL) {
        size_t remaining = (size_t)PyBytes_GET_SIZE(queue->head) - queue->offset;
        WriteChunk *next = queue->tail;

        if (size < remaining) {
            queue->offset += size;
            return;
        }
        size -= remaining;
        Py_DECREF(queue->head);
        queue->offset = 0;
        queue->head = next == NULL ? NULL : next->bytes;
        if (next != NULL) {
            queue->tail = next->next;
            PyMem_Free(next);
        }
    }
}

void write_queue_clear(WriteQueue *queue)
{
    write_queue_consume(queue, queue->unsent);
}

/* Describe the unsent bytes, `max` chunks at most. Returns the number of iovecs filled. */
size_t write_queue_iovecs(const WriteQueue *queue, struct iovec *iovecs, size_t max)
{
    size_t count = 0;

    if (queue->head == NULL)
        return 0;
    iovecs[count].iov_base = PyBytes_AS_STRING(queue->head) + queue->offset;
    iovecs[count++].iov_len = (size_t)PyBytes_GET_SIZE(queue->head) - queue->offset;
    for (const WriteChunk *chunk = queue->tail; chunk != NULL && count < max; chunk = chunk->next) {
        iovecs[count].iov_base = PyBytes_AS_STRING(chunk->bytes);
        iovecs[count++].iov_len = (size_t)PyBytes_GET_SIZE(chunk->bytes);
    }
    return count;
}
