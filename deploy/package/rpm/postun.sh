if [ -d /run/systemd/system ]; then
    systemctl daemon-reload || :
    # An upgrade: the new version adopts the pins of the old one.
    if [ "$1" -ge 1 ]; then
        systemctl try-restart flowproof.service || :
    fi
fi
