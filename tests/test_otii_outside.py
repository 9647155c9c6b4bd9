"""The simulator read by Qoitech's own client with its own connection, and the driver held against what that reads."""

from __future__ import annotations

import threading
import time
from collections.abc import Iterator

import numpy as np
import pytest

from joulemeter.instrument import Options
from joulemeter.instruments import otii
from joulemeter.instruments.otii.simulator import OtiiSimulator
from joulemeter.synthetic import parse_load
from joulemeter.transport.serve import serve_tcp

pytestmark = pytest.mark.outside
pytest.importorskip("otii_tcp_client", reason="needs joulemeter[otii]")

LOAD = parse_load("12mA/20ms/d0,2mA/30ms")
VOLTS, OHM = 3.3, 2.0


@pytest.fixture
def served() -> Iterator[tuple[str, OtiiSimulator]]:
    device = OtiiSimulator(LOAD, Options(), source_ohm=OHM)
    stop, ready, where = threading.Event(), threading.Event(), [""]

    def announce(address: str) -> None:
        where[0] = address
        ready.set()

    server = threading.Thread(target=serve_tcp, args=(device, ("127.0.0.1", 0), announce, stop.is_set), daemon=True)
    server.start()
    assert ready.wait(5)
    yield where[0], device
    stop.set()
    server.join(5)


def test_the_makers_client_measures_a_known_energy(served: tuple[str, OtiiSimulator]) -> None:
    from otii_tcp_client import otii_client
    from otii_tcp_client.otii_exception import Otii_Exception

    host, _, port = served[0].rpartition(":")
    with otii_client.OtiiClient().connect(host=host, port=int(port)) as app:
        assert app.has_license("Automation")
        (device,) = app.get_devices()
        assert device.type == "Arc"
        device.set_main_voltage(VOLTS)
        for channel in ("mc", "mv", "i1"):
            device.enable_channel(channel, True)
        project = app.get_active_project()
        project.start_recording()
        time.sleep(0.6)
        project.stop_recording()
        recording = project.get_last_recording()
        assert recording is not None
        assert not recording.is_running()
        count = recording.get_channel_data_count(device.id, "mc")
        data = recording.get_channel_data(device.id, "mc", 0, count)
        edges = recording.get_channel_data(device.id, "i1", 0, recording.get_channel_data_count(device.id, "i1"))
        told = recording.get_channel_statistics(device.id, "mc", 0.05, 0.55)
        assert recording.get_channel_info(device.id, "mc")["sample_rate"] == 4000
        with pytest.raises(Otii_Exception) as refused:
            device.firmware_upgrade()
        assert refused.value.type == "Invalid command"
    assert not served[1].licences[0]["reserved_to"]
    assert (data["timestamp"], data["interval"], len(data["values"])) == (0.0, 0.00025, count)
    assert count >= 2000
    assert data["values"] == pytest.approx(LOAD.mean_current_a(0, count, 4000).tolist(), abs=5e-9)
    rises = [edge["timestamp"] for edge in edges["values"] if edge["value"]]
    assert rises[:10] == pytest.approx([0.05 * k for k in range(10)])
    # Ten cycles: 12 mA for 20 ms and 2 mA for 30 ms each, at 3.3 V less what falls in the source.
    truth_j = 10 * sum((VOLTS - OHM * a) * a * s for a, s in ((12e-3, 20e-3), (2e-3, 30e-3)))
    assert told["energy"] == pytest.approx(truth_j, rel=1e-5)
    assert told["charge"] == pytest.approx(10 * LOAD.cycle_charge_c, rel=1e-5)


def test_driver_and_makers_client_read_the_same(served: tuple[str, OtiiSimulator]) -> None:
    from otii_tcp_client import otii_client

    with otii.open(served[0], Options(supply_v=VOLTS)) as meter:
        header = meter.start()
        raw = b"".join(meter.read(0.05) for _ in range(20))
    decoder = otii.decoder(header)
    blocks = [*decoder.feed(raw), *decoder.finish()]
    ours = {name: np.concatenate([block.data[name] for block in blocks]) for name in ("current", "voltage", "digital")}
    size = len(ours["current"])
    assert size >= 2000
    host, _, port = served[0].rpartition(":")
    with otii_client.OtiiClient().connect(host=host, port=int(port)) as app:
        (device,) = app.get_devices()
        recording = app.get_active_project().get_last_recording()
        assert recording is not None
        current = recording.get_channel_data(device.id, "mc", 0, size)["values"]
        voltage = recording.get_channel_data(device.id, "mv", 0, -(-size // 4))["values"]
        statistics = recording.get_channel_statistics(device.id, "mc", 0.0, size / 4000)
        edges = recording.get_channel_data(device.id, "i1", 0, recording.get_channel_data_count(device.id, "i1"))
    assert ours["current"].tolist() == current
    assert ours["voltage"].tolist() == np.repeat(voltage, 4)[:size].tolist()
    assert float(np.sum(ours["current"] * ours["voltage"])) / 4000 == pytest.approx(statistics["energy"], rel=1e-12)
    rises = np.flatnonzero(np.diff((ours["digital"] & 1).astype(int), prepend=0) > 0)
    seen = [round(edge["timestamp"] * 4000) for edge in edges["values"] if edge["value"]]
    assert rises.tolist() == [at for at in seen if at < size]
