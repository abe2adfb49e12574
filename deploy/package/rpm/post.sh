systemd-sysusers flowproof.conf || :
folder=/usr/lib/systemd/system/flowproof.service.d
version=$(systemctl --version 2>/dev/null | sed -n '1s/^systemd \([0-9]*\).*/\1/p')
# Type=notify-reload came with systemd 253.
if [ -n "$version" ] && [ "$version" -lt 253 ]; then
    mkdir -p "$folder"
    cp /usr/share/flowproof/flowproof-reload.conf "$folder/reload.conf"
else
    rm -rf "$folder"
fi
if [ -d /run/systemd/system ]; then
    systemctl daemon-reload || :
fi
if [ "$1" = 1 ]; then
    systemctl preset flowproof.service >/dev/null 2>&1 || :
fi
