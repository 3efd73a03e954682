"""What root of a guest is told of its network."""

from __future__ import annotations

from worker.guest_root import apt_configuration, sudoers


def test_apt_goes_through_the_proxy_and_trusts_what_the_guest_does() -> None:
    assert apt_configuration("http://127.0.0.1:1", trust=False) == (
        'Acquire::http::Proxy "http://127.0.0.1:1";\nAcquire::https::Proxy "http://127.0.0.1:1";\n'
    )
    assert 'Acquire::https::CAInfo "/run/tatin/trust/bundle.pem";\n' in apt_configuration("http://p", trust=True)


def test_sudo_keeps_the_variables_and_not_their_values() -> None:
    assert sudoers({"B": "x y", "A": '"'}) == 'Defaults env_keep += "A B"\n'
