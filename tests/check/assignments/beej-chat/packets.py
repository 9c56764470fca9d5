import json


def packet(message, /, **expected):
    try:
        found = json.loads(message)
    except ValueError as error:
        return f"it is not JSON: {error}"
    if found != expected:
        return f"it should be {expected}"
    return None


def chris_joins(message, values):
    return packet(message, type="join", nick="chris")


def pat_joins(message, values):
    return packet(message, type="join", nick="pat")


def pat_leaves(message, values):
    return packet(message, type="leave", nick="pat")


def chris_says(message, values):
    return packet(message, type="chat", nick="chris", message="hi, everyone!")
