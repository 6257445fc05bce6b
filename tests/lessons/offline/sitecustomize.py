"""Put this folder and the repository on PYTHONPATH to run notebooks (`pytest --nbval-lax`) offline."""

from xailab.course.offline import forbid_network

forbid_network()
