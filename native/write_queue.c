/* What a connection has yet to send: the bytes objects themselves, none of them copied. */
#include "internal.h"

#include <sys/uio.h>

/* Append; a reference is taken. 0, or -1 with MemoryError set. */
int queue_put(Queue *queue, PyObject *bytes)
{
    if (queue->first == NULL) {
        queue->first = Py_NewRef(bytes);
        queue->taken = 0;
    } else {
        Piece *piece = PyMem_Malloc(sizeof *piece);

        if (piece == NULL) {
            PyErr_NoMemory();
            return -1;
        }
        piece->next = NULL;
        piece->bytes = Py_NewRef(bytes);
        if (queue->rest == NULL)
            queue->rest = piece;
        else
            queue->last->next = piece;
        queue->last = piece;
    }
    queue->unsent += (size_t)PyBytes_GET_SIZE(bytes);
    return 0;
}

/* The system has taken so many bytes more. */
void queue_advance(Queue *queue, size_t size)
{
    queue->unsent -= size;
    while (queue->first != NULL) {
        size_t left = (size_t)PyBytes_GET_SIZE(queue->first) - queue->taken;
        Piece *next = queue->rest;

        if (size < left) {
            queue->taken += size;
            return;
        }
        size -= left;
        Py_DECREF(queue->first);
        queue->taken = 0;
        queue->first = next == NULL ? NULL : next->bytes;
        if (next != NULL) {
            queue->rest = next->next;
            PyMem_Free(next);
        }
    }
}

void queue_clear(Queue *queue)
{
    queue_advance(queue, queue->unsent);
}

/* Where the unsent bytes lie, `most` pieces of them at most; how many there are. */
size_t queue_vectors(const Queue *queue, struct iovec *vectors, size_t most)
{
    size_t count = 0;

    if (queue->first == NULL)
        return 0;
    vectors[count].iov_base = PyBytes_AS_STRING(queue->first) + queue->taken;
    vectors[count++].iov_len = (size_t)PyBytes_GET_SIZE(queue->first) - queue->taken;
    for (const Piece *piece = queue->rest; piece != NULL && count < most; piece = piece->next) {
        vectors[count].iov_base = PyBytes_AS_STRING(piece->bytes);
        vectors[count++].iov_len = (size_t)PyBytes_GET_SIZE(piece->bytes);
    }
    return count;
}
