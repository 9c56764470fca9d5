/* The states of a connection with a conversation, what can happen to it, and what must be done then.
 *
 * The numbers are those of engines/connection_state.py, which has the table of transitions: C takes it from there
 * (connection_bind_transitions).
 */
#ifndef BOTHENDS_CONNECTION_STATE_H
#define BOTHENDS_CONNECTION_STATE_H

/* In the first three the conversation may still send more. */
enum connection_state {
    STATE_OPEN,      /* receiving and sending */
    STATE_PEER_DONE, /* the peer has sent EOF */
    STATE_STOPPED,   /* the server takes no more input */
    STATE_FLUSHING,  /* the conversation has finished; output is unsent */
    STATE_CLOSING,   /* the same after the peer's EOF */
    STATE_LINGERING, /* everything is sent, and our FIN; waiting for the peer's EOF */
    STATE_CLOSED,    /* closed, or to be closed once no request is in flight */
    STATE_COUNT,
};

/* What can happen to it. */
enum connection_input {
    INPUT_PEER_EOF,
    INPUT_STOP,
    INPUT_FINISHED,
    INPUT_FLUSHED,
    INPUT_CUT,
    INPUT_LOST,
    INPUT_LINGER_EXPIRED,
    INPUT_COUNT,
};

/* What must be done with the socket. */
enum connection_action { ACTION_NONE, ACTION_SHUTDOWN, ACTION_CLOSE, ACTION_RESET };

#endif
