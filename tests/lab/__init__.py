"""Two hosts on one machine, each with a real Docker Engine, a third for an arbiter, and the ways to
break them: `Lab`. With agents and a witness or an etcd on top: `Trio`; all its faults: `nemesis`.
"""
