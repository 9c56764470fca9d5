import socket
import sys
import threading

results = {}
barrier = threading.Barrier(12)


def ask(i):
    barrier.wait()
    try:
        with socket.create_connection(("127.0.0.1", int(sys.argv[1])), timeout=5) as s:
            s.sendall(f"user{i}\n".encode())
            results[i] = s.makefile("r").readline().strip() or "EMPTY"
    except OSError as e:
        results[i] = repr(e)


threads = [threading.Thread(target=ask, args=(i,)) for i in range(12)]
for t in threads:
    t.start()
for t in threads:
    t.join()
for i in sorted(results):
    print(i, results[i])
print(sum(r.startswith("hello") for r in results.values()), "of", len(results), "answered")
