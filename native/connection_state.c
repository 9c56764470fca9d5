/* The table of a connection's states (connection_state.h). */
#include "connection_state.h"

#define TO(next, what) {.exists = true, .state = STATE_##next, .action = ACTION_##what}

static const Transition transitions[STATE_COUNT][INPUT_COUNT] = {
    [STATE_OPEN] =
        {
            [INPUT_PEER_EOF] = TO(PEER_DONE, NONE),
            [INPUT_STOP] = TO(STOPPED, NONE),
            [INPUT_FINISHED] = TO(FLUSHING, NONE),
            [INPUT_CUT] = TO(CLOSED, RESET),
            [INPUT_LOST] = TO(CLOSED, CLOSE),
        },
    [STATE_PEER_DONE] =
        {
            [INPUT_STOP] = TO(PEER_DONE, NONE),
            [INPUT_FINISHED] = TO(CLOSING, NONE),
            [INPUT_CUT] = TO(CLOSED, RESET),
            [INPUT_LOST] = TO(CLOSED, CLOSE),
        },
    [STATE_STOPPED] =
        {
            [INPUT_PEER_EOF] = TO(PEER_DONE, NONE),
            [INPUT_STOP] = TO(STOPPED, NONE),
            [INPUT_FINISHED] = TO(FLUSHING, NONE),
            [INPUT_CUT] = TO(CLOSED, RESET),
            [INPUT_LOST] = TO(CLOSED, CLOSE),
        },
    [STATE_FLUSHING] =
        {
            [INPUT_PEER_EOF] = TO(CLOSING, NONE),
            [INPUT_FLUSHED] = TO(LINGERING, SHUTDOWN),
            [INPUT_CUT] = TO(CLOSED, RESET),
            [INPUT_LOST] = TO(CLOSED, CLOSE),
        },
    [STATE_CLOSING] =
        {
            [INPUT_FLUSHED] = TO(CLOSED, CLOSE),
            [INPUT_CUT] = TO(CLOSED, RESET),
            [INPUT_LOST] = TO(CLOSED, CLOSE),
        },
    [STATE_LINGERING] =
        {
            [INPUT_PEER_EOF] = TO(CLOSED, CLOSE),
            [INPUT_CUT] = TO(CLOSED, CLOSE),
            [INPUT_LOST] = TO(CLOSED, CLOSE),
            [INPUT_LINGER_EXPIRED] = TO(CLOSED, CLOSE),
        },
};

Transition connection_transition(enum connection_state state, enum connection_input input)
{
    return transitions[state][input];
}
