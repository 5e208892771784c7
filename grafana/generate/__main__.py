"""Write the dashboards: `python -m grafana.generate`."""

from grafana.generate.boards import write

if __name__ == "__main__":
    write()
