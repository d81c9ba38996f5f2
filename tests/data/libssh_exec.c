/* A client of libssh: runs a command with a key, copies its input and output, and exits with its status. */
#include <libssh/libssh.h>
#include <stdio.h>
#include <unistd.h>

static int give_up(ssh_session session, const char *what)
{
    fprintf(stderr, "%s: %s\n", what, ssh_get_error(session));
    return 254;
}

int main(int argc, char **argv)
{
    unsigned int port;
    ssh_key key;
    char buffer[4096];
    int count;

    if (argc != 4 || sscanf(argv[1], "%u", &port) != 1)
        return 253;
    ssh_session session = ssh_new();
    ssh_options_set(session, SSH_OPTIONS_HOST, "127.0.0.1");
    ssh_options_set(session, SSH_OPTIONS_PORT, &port);
    ssh_options_set(session, SSH_OPTIONS_USER, "root");
    if (ssh_connect(session) != SSH_OK)
        return give_up(session, "connect");
    if (ssh_pki_import_privkey_file(argv[2], NULL, NULL, NULL, &key) != SSH_OK)
        return give_up(session, "key");
    if (ssh_userauth_publickey(session, NULL, key) != SSH_AUTH_SUCCESS)
        return give_up(session, "login");
    ssh_channel channel = ssh_channel_new(session);
    if (ssh_channel_open_session(channel) != SSH_OK || ssh_channel_request_exec(channel, argv[3]) != SSH_OK)
        return give_up(session, "exec");
    while ((count = (int)read(0, buffer, sizeof buffer)) > 0)
        if (ssh_channel_write(channel, buffer, (uint32_t)count) != count)
            return give_up(session, "write");
    ssh_channel_send_eof(channel);
    while ((count = ssh_channel_read(channel, buffer, sizeof buffer, 0)) > 0)
        fwrite(buffer, 1, (size_t)count, stdout);
    int status = ssh_channel_get_exit_status(channel);
    ssh_channel_close(channel);
    ssh_channel_free(channel);
    ssh_key_free(key);
    ssh_disconnect(session);
    ssh_free(session);
    return status;
}
