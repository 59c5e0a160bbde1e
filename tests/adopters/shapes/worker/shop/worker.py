import signal
import threading

done = threading.Event()
signal.signal(signal.SIGTERM, lambda *_: done.set())
print("the worker works", flush=True)
done.wait()
print("the worker ends", flush=True)
