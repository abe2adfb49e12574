if [ "$1" = 0 ]; then
    if [ -d /run/systemd/system ]; then
        systemctl --no-reload disable --now flowproof.service || :
    fi
    # Nothing is left to read what the programs count.
    flowproof detach --all || :
    rm -rf /usr/lib/systemd/system/flowproof.service.d /run/flowproof-pins
fi
