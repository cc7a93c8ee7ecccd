"""Who the shoppers are: names, addresses, prices; the same for the same seed, however many there are."""

from ipaddress import IPv4Network, IPv6Network, ip_network
from random import Random
from typing import Final, NamedTuple

Network = IPv4Network | IPv6Network

UNKNOWN_SHARE: Final = 0.05
"""So many shoppers never signed up: they click, and MySQL has never heard of them."""

PHONE_SHARE: Final = 0.35
"""So many shop from a second address, too."""


class Shopper(NamedTuple):
    """One person with a browser; `addresses` starts with the one at home, a phone's may follow."""

    user_id: str
    pixel_id: str
    name: str
    price_per_click: float
    signed_up: bool
    addresses: tuple[str, ...]


def people(seed: int, count: int) -> list[Shopper]:
    """Return `count` shoppers, "1" being the first; the first thousand of a million are those of a thousand."""
    rng = seeded(seed, "people")
    return [_shopper(str(number), rng) for number in range(1, count + 1)]


def seeded(seed: int, purpose: str) -> Random:
    """Return chance of its own for each purpose, so that drawing more for one does not change another."""
    return Random(f"{seed}/{purpose}")  # noqa: S311  # nothing here is secret


def _shopper(user_id: str, rng: Random) -> Shopper:
    first_names, last_names = rng.choice(_NAMES)
    return Shopper(
        user_id=user_id,
        pixel_id="".join(rng.choices("abcdefghijklmnopqrstuvwxyz0123456789", k=10)),
        name=f"{rng.choice(first_names)} {rng.choice(last_names)}",
        price_per_click=round(min(0.05 + rng.expovariate(4), 2.5), 2),
        signed_up=rng.random() >= UNKNOWN_SHARE,
        addresses=_addresses(rng),
    )


def _addresses(rng: Random) -> tuple[str, ...]:
    [home_networks] = rng.choices((_HOME_V4, _HOME_V6, _UNROUTABLE), (80, 17, 3))
    home = _address_in(rng.choice(home_networks), rng)
    return (home, _address_in(rng.choice(_MOBILE), rng)) if rng.random() < PHONE_SHARE else (home,)


def _address_in(network: Network, rng: Random) -> str:
    return str(network[rng.getrandbits(network.max_prefixlen - network.prefixlen)])


def _networks(prefixes: str) -> tuple[Network, ...]:
    return tuple(ip_network(prefix) for prefix in prefixes.split())


# What access providers around the world hand out, by the registries' public delegations. An address within one
# belongs to a real region; nobody is reached by it, it is only ever looked up.
_HOME_V4: Final = _networks(
    "73.0.0.0/8 98.192.0.0/10 24.0.0.0/12 71.160.0.0/11 99.224.0.0/11 70.24.0.0/13 "  # North America
    "177.32.0.0/14 189.100.0.0/14 187.128.0.0/12 190.16.0.0/14 "  # South America
    "86.128.0.0/10 90.192.0.0/11 79.192.0.0/10 84.128.0.0/10 91.0.0.0/10 90.0.0.0/10 82.64.0.0/14 "  # Western Europe
    "87.0.0.0/11 83.32.0.0/11 95.24.0.0/13 88.224.0.0/11 78.160.0.0/11 "  # Southern and Eastern Europe
    "111.0.0.0/10 114.224.0.0/12 126.0.0.0/8 175.192.0.0/10 117.192.0.0/10 1.128.0.0/11 "  # Asia and Australia
    "41.32.0.0/12 41.144.0.0/13"  # Africa
)
_HOME_V6: Final = _networks(
    "2601::/20 2600:1700::/28 2804:14c::/31 "  # the Americas
    "2003::/19 2a02:908::/32 2a02:8108::/31 2a02:c7c::/32 2a01:e00::/26 "  # Europe
    "2409:8000::/20 240e:300::/24 2405:200::/29"  # Asia
)
_MOBILE: Final = _networks("172.56.0.0/13 174.192.0.0/10 107.64.0.0/10 49.32.0.0/11 106.192.0.0/11 2409:4000::/22")
_UNROUTABLE: Final = _networks(
    "10.0.0.0/8 192.168.0.0/16 172.16.0.0/12 100.64.0.0/10 127.0.0.0/8 203.0.113.0/24 fd00::/8 2001:db8::/32"
)


def _names(first_names: str, last_names: str) -> tuple[list[str], list[str]]:
    return first_names.split(), last_names.split()


_NAMES: Final = (
    _names(
        "Olivia James Emma Noah Grace Ethan Chloe Mason Ruby Jacob",
        "Smith Johnson Brown Taylor Wilson Clark Evans Walker O'Neill Fitzgerald",
    ),
    _names(
        "Sofía Mateo Lucía Joaquín Inés Andrés Ximena Tomás Pilar Iñigo",
        "García Núñez Rodríguez Ibáñez Morales Peña Castillo Vargas Domínguez Ríos",
    ),
    _names(
        "Camille Léo Chloë Théo Zoé François Maëlle Hugo Inès Benoît",
        "Lefèvre Dubois Moreau Besançon Girard Gauthier Petit Noël Chevalier Faure",
    ),
    _names(
        "Jürgen Anneliese Björn Käthe Lukas Greta Søren Astrid Åsa Jörg",
        "Müller Schäfer Weiß Köhler Lindström Jørgensen Ångström Vogel Böhm Hansen",
    ),
    _names(
        "Zofia Łukasz Agnieszka Paweł Jiří Markéta Ágnes Zoltán Şebnem Ioana",
        "Wiśniewski Kowalczyk Novák Čapek Szabó Nagy Öztürk Ionescu Dąbrowska Horváth",
    ),
    _names(
        "Ольга Дмитрий Людмила Юрий Жанна Фёдор Галина Илья",
        "Цветаева Щукин Бойко Шевченко Жуков Яковлева Гончар Лебедь",
    ),
    _names("美咲 翔太 さくら 健太 陽菜 大輔 結衣 蓮", "佐藤 鈴木 高橋 田中 渡辺 伊藤 山本 中村"),
    _names("王芳 李娜 张伟 刘洋 陈静 杨磊 赵敏 黄勇", "Wang Li Zhang Liu Chen Yang Zhao Huang"),
    _names(
        "Aarav Diya Ishaan Ananya Rohan Priya Vikram Kavya Arjun Meera",
        "Sharma Patel Iyer Reddy Banerjee Singh Nair Kulkarni Gupta Chatterjee",
    ),
    _names(
        "ليلى عمر فاطمة يوسف مريم خالد نور حسن",
        "الحداد المصري العلي النجار الخطيب منصور السعدي درويش",
    ),
    _names(
        "Chinwe Oluwaseun Amara Kwame Zainab Thabo Ifeoma Kofi Nomsa Babajide",
        "Okafor Adébáyọ̀ Mensah Nkosi Abubakar Dlamini Owusu Eze Mbeki Achebe",
    ),
    _names(
        "Nguyễn Trần Lê Phạm Hoàng Vũ Đặng Bùi",
        "Anh Hương Dũng Thảo Quỳnh Đức Linh Phương",
    ),
)
